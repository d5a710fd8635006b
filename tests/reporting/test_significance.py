"""The paired bootstrap over saved predictions."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from run_folders import write_predictions, write_run
from sklearn.metrics import f1_score

from ptmt_lightning.reporting.runs import Run, find_runs
from ptmt_lightning.reporting.significance import _Tested, compare

PATHS = [["A", "AA"], ["A", "AB"], ["A"], ["B", "BA"], ["B"]]
LABELS = ["A", "B", "AA", "AB", "BA", "BB"]  # the last one never occurs


def finished(folder: Path, accuracy: float, seed: int = 0, documents: int = 60) -> Run:
    """A run that finds the path of a share of its documents."""
    truth, draw = random.Random(0), random.Random(seed)
    content = {}
    for number in range(documents):
        true = [truth.choice(PATHS)]
        content[f"d{number}"] = (true, true if draw.random() < accuracy else [draw.choice(PATHS)])
    write_run(folder, accuracy, seed)
    write_predictions(folder, LABELS, content)
    [run], _ = find_runs([folder])
    return run


@pytest.mark.parametrize("metric", ["h_f1_macro", "h_f1_micro"])
def test_scores_of_drawn_documents_are_scikit_learns(tmp_path: Path, metric: str) -> None:
    run = _Tested(finished(tmp_path / "run", 0.5))
    drawn = torch.randint(60, (3, 60), generator=torch.Generator().manual_seed(0))
    weights = torch.stack([torch.bincount(rows, minlength=60) for rows in drawn]).float()
    for rows, score in zip(drawn, run.score(weights, metric), strict=True):
        true, predicted = run.true[rows].numpy(), run.predicted[rows].numpy()
        present = np.flatnonzero((true + predicted).sum(0))
        assert len(present) < len(LABELS)
        expected = f1_score(true, predicted, average=metric.rsplit("_")[-1], labels=present, zero_division=0)
        assert score.item() == pytest.approx(expected, abs=1e-12)


def test_macro_over_all_classes_where_the_run_has_it(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", 1.0)
    everything = torch.ones(1, 60)
    assert _Tested(run).score(everything, "h_f1_macro").item() == 1
    run.settings["model.metric_classes"] = "all"
    assert _Tested(run).score(everything, "h_f1_macro").item() == pytest.approx(5 / 6)


def test_a_run_and_itself_do_not_differ(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", 0.5)
    assert compare([run], [run], metric="h_f1_macro") == (0, 0, 0, 1)


def test_a_clear_difference_has_the_least_p_and_the_other_sign_the_other_way_round(tmp_path: Path) -> None:
    good, bad = finished(tmp_path / "good", 0.95), finished(tmp_path / "bad", 0.1, seed=1)
    found, turned = compare([good], [bad], metric="h_f1_micro"), compare([bad], [good], metric="h_f1_micro")
    assert 0 < found.low < found.difference < found.high
    assert found.p == turned.p == pytest.approx(2 / 1001)
    assert (turned.difference, turned.low) == pytest.approx((-found.difference, -found.high))


def test_chance_alone_is_seldom_significant(tmp_path: Path) -> None:
    pairs = [
        [finished(tmp_path / f"{number}{side}", 0.6, seed=2 * number + side) for side in (0, 1)] for number in range(20)
    ]
    values = [compare([one], [other], metric="h_f1_micro", samples=300).p for one, other in pairs]
    assert sum(value < 0.05 for value in values) <= 4
    assert sum(value > 0.2 for value in values) >= 10


def test_a_side_is_the_mean_of_its_seeds(tmp_path: Path) -> None:
    runs = [finished(tmp_path / str(seed), 0.6, seed) for seed in (1, 2)]
    base = finished(tmp_path / "base", 0.3)
    single = [compare([run], [base], metric="h_f1_macro").difference for run in runs]
    assert compare(runs, [base], metric="h_f1_macro").difference == pytest.approx(sum(single) / 2)


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    run, other = finished(tmp_path / "run", 0.5), finished(tmp_path / "other", 0.5, documents=61)
    with pytest.raises(ValueError, match=r"other was not tested on the documents of .*run$"):
        compare([run], [other], metric="h_f1_macro")
    with pytest.raises(
        ValueError, match="h_auprc can't be had from saved predictions; order by h_f1_macro or h_f1_micro"
    ):
        compare([run], [run], metric="h_auprc")
    (run.folder / "predictions.jsonl").write_text('{"id": "d0"')
    with pytest.raises(ValueError, match=r"run: predictions\.jsonl or per_label\.csv is broken \(JSONDecodeError"):
        compare([run], [run], metric="h_f1_macro")
    (run.folder / "predictions.jsonl").unlink()
    with pytest.raises(ValueError, match=r"run has no predictions\.jsonl, as a run with test=true leaves"):
        compare([run], [run], metric="h_f1_macro")
