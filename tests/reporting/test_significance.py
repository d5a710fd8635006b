"""The paired bootstrap over saved predictions."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from run_folders import write_predictions, write_run
from scipy import stats
from sklearn.metrics import f1_score

from ptmt_lightning.reporting.significance import _resamples, compare, compare_seeds, resample
from ptmt_lightning.run_folder.finished import Run, find_runs

EDGES = [("ROOT", "A"), ("ROOT", "B"), ("A", "AA"), ("A", "AB"), ("B", "BA"), ("B", "BB")]
TRUE = [["A", "AA"], ["A", "AB"], ["A"], ["B", "BA"], ["B"]]  # BB never occurs
FOUND = [*TRUE, ["AA"], ["BA"]]  # of runs without pruning


def finished(folder: Path, accuracy: float, seed: int = 0, documents: int = 60) -> Run:
    """A run that finds the path of a share of its documents."""
    truth, draw = random.Random(0), random.Random(seed)
    content = {}
    for number in range(documents):
        true = [truth.choice(TRUE)]
        content[f"d{number}"] = (true, true if draw.random() < accuracy else [draw.choice(FOUND)])
    write_run(folder, accuracy, seed)
    write_predictions(folder, EDGES, content)
    return read(folder)


def read(folder: Path) -> Run:
    [run], _ = find_runs([folder])
    return run


@pytest.mark.parametrize("metric", ["h_f1_macro", "h_f1_micro"])
def test_scores_of_drawn_documents_are_scikit_learns(tmp_path: Path, metric: str) -> None:
    run = finished(tmp_path / "run", 0.5)
    resampled = resample([run], metric)
    assert resampled.measured == pytest.approx(run.result["test"][metric], abs=1e-12)
    names = sorted({child for _, child in EDGES})
    lines = [json.loads(line) for line in (run.folder / "predictions.jsonl").read_text().splitlines()]
    paths = [[line["labels"] for line in lines], [[path["path"] for path in line["predicted"]] for line in lines]]
    sides = [np.array([[_has(name, document) for name in names] for document in side]) for side in paths]
    weights = next(_resamples(60))
    assert weights.sum(1).tolist() == [60] * 100
    for row, score in zip(weights[:30], resampled.drawn[:30], strict=True):
        true, predicted = (np.repeat(side, row.int().numpy(), axis=0) for side in sides)
        present = np.flatnonzero((true | predicted).any(0))
        expected = f1_score(true, predicted, average=metric.rsplit("_")[-1], labels=present, zero_division=0)
        assert score.item() == pytest.approx(expected, abs=1e-12)


def _has(name: str, paths: list[list[str]]) -> bool:
    """Whether a label is on a path or above it: labels are named after those above."""
    return any(name in (label, label[0]) for path in paths for label in path)


def test_documents_are_drawn_with_replacement_and_alike_each_time() -> None:
    first, again = torch.cat([*_resamples(50)]), torch.cat([*_resamples(50)])
    assert first.shape == (1000, 50)
    assert torch.equal(first, again)
    assert (first == 0).float().mean().item() == pytest.approx((1 - 1 / 50) ** 50, abs=0.02)


def test_macro_over_all_classes_where_the_run_has_it(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", 1.0)
    assert resample([run], "h_f1_macro").measured == 1
    run.settings["model.metric_classes"] = "all"
    run.result["test"]["h_f1_macro"] = 5 / 6
    assert resample([run], "h_f1_macro").measured == pytest.approx(5 / 6)


def test_a_run_and_itself_do_not_differ(tmp_path: Path) -> None:
    scores = resample([finished(tmp_path / "run", 0.5)], "h_f1_macro")
    assert compare(scores, scores) == (0, 0, 0, 1)


def test_a_clear_difference_has_the_least_p_and_the_other_sign_the_other_way_round(tmp_path: Path) -> None:
    good, bad = (
        resample([finished(tmp_path / str(seed), share, seed)], "h_f1_micro") for seed, share in ((0, 0.95), (1, 0.1))
    )
    found, turned = compare(good, bad), compare(bad, good)
    assert 0 < found.low < found.difference < found.high
    assert found.p == turned.p == pytest.approx(2 / 1001)
    assert (turned.difference, turned.low) == pytest.approx((-found.difference, -found.high))


def test_chance_alone_is_seldom_significant(tmp_path: Path) -> None:
    runs = [resample([finished(tmp_path / str(seed), 0.6, seed)], "h_f1_micro") for seed in range(40)]
    values = [compare(one, other).p for one, other in zip(runs[::2], runs[1::2], strict=True)]
    assert sum(value < 0.05 for value in values) <= 4
    assert sum(value > 0.2 for value in values) >= 10


def test_a_side_is_the_mean_of_its_seeds(tmp_path: Path) -> None:
    runs = [finished(tmp_path / str(seed), 0.6, seed) for seed in (1, 2)]
    single = [resample([run], "h_f1_macro") for run in runs]
    both = resample(runs, "h_f1_macro")
    assert both.measured == pytest.approx(sum(side.measured for side in single) / 2)
    assert both.drawn.tolist() == pytest.approx(((single[0].drawn + single[1].drawn) / 2).tolist())


def test_other_documents_and_other_truths(tmp_path: Path) -> None:
    run, longer = finished(tmp_path / "run", 0.5), finished(tmp_path / "longer", 0.5, documents=61)
    other = write_run(tmp_path / "other", 0.5)
    write_predictions(other, EDGES, {f"d{number}": ([["B"]], [["B"]]) for number in range(60)})
    for rival in (longer, read(other)):
        message = f"{rival.folder} was not tested on the documents and labels of {run.folder}"
        with pytest.raises(ValueError) as error:  # noqa: PT011
            compare(resample([rival], "h_f1_macro"), resample([run], "h_f1_macro"))
        assert str(error.value) == message
        with pytest.raises(ValueError) as error:  # noqa: PT011
            resample([run, rival], "h_f1_macro")
        assert str(error.value) == message


def test_what_cannot_be_scored(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", 0.5)
    whole = run.result["test"]["h_f1_macro"]
    run.result["test"]["h_f1_macro"] = 0.25
    message = rf"run: predictions\.jsonl gives h_f1_macro={whole:.6f}, result\.json has 0\.250000; test it again$"
    with pytest.raises(ValueError, match=message):
        resample([run], "h_f1_macro")
    for content, problem in (("", "no documents"), ('{"id": "d0"', "JSONDecodeError"), ('{"id": "d0"}', "'labels'")):
        (run.folder / "predictions.jsonl").write_text(content)
        with pytest.raises(ValueError, match=rf"run: predictions\.jsonl or taxonomy\.json is broken \(.*{problem}"):
            resample([run], "h_f1_macro")
    (run.folder / "predictions.jsonl").unlink()
    with pytest.raises(ValueError, match=r"run lacks predictions\.jsonl, as a run with test=true leaves"):
        resample([run], "h_f1_macro")


def seeded(folder: Path, scores: dict[int, float]) -> list[Run]:
    return [read(write_run(folder / f"{seed}", score, seed)) for seed, score in scores.items()]


def test_seeds_that_both_have_are_paired(tmp_path: Path) -> None:
    ours = seeded(tmp_path / "ours", {0: 0.5, 1: 0.7, 2: 0.6})
    base = seeded(tmp_path / "base", {2: 0.5, 0: 0.45, 1: 0.63})
    found = compare_seeds(ours, base, "h_f1_macro", "test")
    differences = np.array([0.05, 0.07, 0.1])
    half = 4.302653 * differences.std(ddof=1) / 3**0.5  # Student's t with two degrees of freedom
    assert found is not None
    assert found[:3] == pytest.approx((differences.mean(), differences.mean() - half, differences.mean() + half))
    assert 0.03 < found.p < 0.05


def test_other_seeds_are_not_paired(tmp_path: Path) -> None:
    ours, base = seeded(tmp_path / "ours", {0: 0.5, 1: 0.7}), seeded(tmp_path / "base", {0: 0.5, 2: 0.6, 3: 0.4})
    found = compare_seeds(ours, base, "h_f1_macro", "val")
    assert found is not None
    assert found.difference == pytest.approx(0.1)
    variances = 0.02 / 2, 0.01 / 3
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 1 + variances[1] ** 2 / 2)  # Welch and Satterthwaite
    assert found.high - found.difference == pytest.approx(stats.t.ppf(0.975, freedom) * sum(variances) ** 0.5)


@pytest.mark.parametrize("scores", [{0: 0.5}, {0: 0.5, 1: 0.6}])
def test_nothing_is_said_of_one_seed_or_of_seeds_that_make_no_difference(
    tmp_path: Path, scores: dict[int, float]
) -> None:
    base = seeded(tmp_path / "base", {0: 0.4, 1: 0.5})
    assert compare_seeds(seeded(tmp_path / "ours", scores), base, "h_f1_macro", "test") is None
