"""Tests of differences: over documents, over seeds, and over both."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from run_folders import write_predictions, write_run
from scipy import stats
from sklearn.metrics import f1_score

from ptmt_lightning.reporting.significance import (
    Comparison,
    Resampled,
    _resamples,
    compare_both,
    compare_documents,
    compare_seeds,
    compare_unpaired,
    holm,
    resample,
    seed_scores,
)
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
    assert resampled.measured.item() == pytest.approx(run.result["test"][metric], abs=1e-12)
    names = sorted({child for _, child in EDGES})
    lines = [json.loads(line) for line in (run.folder / "predictions.jsonl").read_text().splitlines()]
    paths = [[line["labels"] for line in lines], [[path["path"] for path in line["predicted"]] for line in lines]]
    sides = [np.array([[_has(name, document) for name in names] for document in side]) for side in paths]
    weights = next(_resamples(60))
    assert weights.sum(1).tolist() == [60] * 100
    for row, score in zip(weights[:30], resampled.drawn[0, :30], strict=True):
        true, predicted = (np.repeat(side, row.int().numpy(), axis=0) for side in sides)
        present = np.flatnonzero((true | predicted).any(0))
        expected = f1_score(true, predicted, average=metric.rsplit("_")[-1], labels=present, zero_division=0)
        assert score.item() == pytest.approx(expected, abs=1e-12)


def _has(name: str, paths: list[list[str]]) -> bool:
    """Whether a label is on a path or above it: labels are named after those above."""
    return any(name in (label, label[0]) for path in paths for label in path)


def test_documents_are_drawn_with_replacement_and_alike_each_time() -> None:
    first, again = torch.cat([*_resamples(50)]), torch.cat([*_resamples(50)])
    assert first.shape == (2000, 50)
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
    assert compare_documents(scores, scores) == (0, 0, 0, 1, 1, 1)


def test_a_clear_difference_has_the_least_p_and_the_other_sign_the_other_way_round(tmp_path: Path) -> None:
    good, bad = (
        resample([finished(tmp_path / str(seed), share, seed)], "h_f1_micro") for seed, share in ((0, 0.95), (1, 0.1))
    )
    found, turned = compare_documents(good, bad), compare_documents(bad, good)
    assert 0 < found.low < found.difference < found.high
    assert found.p == turned.p == pytest.approx(2 / 2001)
    assert (turned.difference, turned.low) == pytest.approx((-found.difference, -found.high))


def test_chance_alone_is_seldom_significant(tmp_path: Path) -> None:
    runs = [resample([finished(tmp_path / str(seed), 0.6, seed)], "h_f1_micro") for seed in range(40)]
    values = [compare_documents(one, other).p for one, other in zip(runs[::2], runs[1::2], strict=True)]
    assert sum(value < 0.05 for value in values) <= 4
    assert sum(value > 0.2 for value in values) >= 10


def test_a_side_has_the_scores_of_each_of_its_runs_and_is_their_mean(tmp_path: Path) -> None:
    runs = [finished(tmp_path / str(seed), 0.6, seed) for seed in (1, 2)]
    single = [resample([run], "h_f1_macro") for run in runs]
    both = resample(runs, "h_f1_macro")
    assert both.seeds == [1, 2]
    assert torch.equal(both.measured, torch.cat([side.measured for side in single]))
    assert torch.equal(both.drawn, torch.cat([side.drawn for side in single]))
    found = compare_documents(both, single[0])
    assert found.difference == pytest.approx((single[1].measured - single[0].measured).item() / 2, abs=1e-6)


def test_other_documents_and_other_truths(tmp_path: Path) -> None:
    run, longer = finished(tmp_path / "run", 0.5), finished(tmp_path / "longer", 0.5, documents=61)
    other = write_run(tmp_path / "other", 0.5)
    write_predictions(other, EDGES, {f"d{number}": ([["B"]], [["B"]]) for number in range(60)})
    for rival in (longer, read(other)):
        message = f"{rival.folder} was not tested on the documents and labels of {run.folder}"
        with pytest.raises(ValueError) as error:  # noqa: PT011
            compare_documents(resample([rival], "h_f1_macro"), resample([run], "h_f1_macro"))
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
    run.result["test"]["h_f1_macro"] = None
    with pytest.raises(ValueError, match=r"run has no h_f1_macro$"):
        resample([run], "h_f1_macro")
    for content, problem in (("", "no documents"), ('{"id": "d0"', "JSONDecodeError"), ('{"id": "d0"}', "'labels'")):
        (run.folder / "predictions.jsonl").write_text(content)
        with pytest.raises(ValueError, match=rf"run: predictions\.jsonl or taxonomy\.json is broken \(.*{problem}"):
            resample([run], "h_f1_macro")
    (run.folder / "predictions.jsonl").unlink()
    with pytest.raises(ValueError, match=r"run lacks predictions\.jsonl, as a run with test=true leaves"):
        resample([run], "h_f1_macro")


def of_seeds(scores: Mapping[int, float], noise: float = 0.0, draw: int = 0) -> Resampled:
    """Runs whose scores on drawn documents scatter; all of them see the same documents."""
    generator = torch.Generator().manual_seed(draw)
    measured = torch.tensor(list(scores.values()))
    return Resampled(
        Path(), list(scores), measured, measured[:, None] + noise * torch.randn(1000, generator=generator), ""
    )


def test_both_knows_the_chance_of_documents_and_that_of_seeds() -> None:
    ours, base = {seed: 0.5 + 0.02 * seed for seed in range(5)}, dict.fromkeys(range(5), 0.45)
    documents = compare_documents(of_seeds(ours, 0.03), of_seeds(base, draw=1))
    seeds = compare_both(of_seeds(ours), of_seeds(base))
    both = compare_both(of_seeds(ours, 0.03), of_seeds(base, draw=1))
    assert both.difference == pytest.approx(0.09)
    deviations = [(found.high - found.low) / 2 / 1.96 for found in (documents, seeds, both)]
    assert deviations[0] == pytest.approx(0.03, rel=0.1)
    assert deviations[1] == pytest.approx(np.std(list(ours.values()), ddof=1) / 5**0.5, rel=0.1)
    assert deviations[2] == pytest.approx((deviations[0] ** 2 + deviations[1] ** 2) ** 0.5, rel=0.1)


def test_both_draws_in_pairs_the_seeds_that_both_sides_have() -> None:
    ours = {3: 0.70, 1: 0.50, 2: 0.61, 9: 0.0}
    base = {1: 0.48, 2: 0.59, 3: 0.68, 7: 1.0}
    found = compare_both(of_seeds(ours), of_seeds(base))
    assert found[:3] == pytest.approx((0.02, 0.02, 0.02), abs=1e-6)
    others = compare_both(of_seeds({1: 0.5, 2: 0.7}), of_seeds({3: 0.4, 4: 0.6, 5: 0.5}))
    assert (others.difference, others.low, others.high) == pytest.approx((0.1, -0.1, 0.3), abs=1e-6)
    with pytest.raises(ValueError, match=r"^one side has a single seed$"):
        compare_both(of_seeds({1: 0.5}), of_seeds(base))


def test_both_is_a_plain_loop_over_resamples() -> None:
    ours, base = of_seeds({0: 0.5, 1: 0.7, 2: 0.65}, 0.02), of_seeds({2: 0.6, 0: 0.55, 1: 0.5}, 0.04, draw=1)
    chosen = torch.randint(3, (1000, 2), generator=torch.Generator().manual_seed(1))
    drawn = []
    for resample_, rows in enumerate(chosen.tolist()):
        pairs = [(ours.seeds.index(seed), base.seeds.index(seed)) for seed in (0, 1, 2)]
        drawn.append(
            np.mean([ours.drawn[pairs[row][0], resample_] - base.drawn[pairs[row][1], resample_] for row in rows])
        )
    found = compare_both(ours, base)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=1e-6)
    assert found.p == pytest.approx(2 * (sum(value <= 0 for value in drawn) + 1) / 1001)


def test_scores_of_seeds_are_those_that_there_are(tmp_path: Path) -> None:
    runs = [read(write_run(tmp_path / f"{seed}", 0.5 + seed / 10, seed)) for seed in range(4)]
    runs[1].result["val"]["h_f1_macro"] = None
    runs[2].result["val"]["h_f1_macro"] = float("nan")
    assert seed_scores(runs, "h_f1_macro", "val") == pytest.approx({0: 0.6, 3: 0.9})


OURS = {0: 0.5, 1: 0.7, 2: 0.6, 5: 0.55}
BASE = {2: 0.5, 0: 0.45, 1: 0.63}


def test_seeds_that_both_have_are_paired() -> None:
    found = compare_seeds(OURS, BASE)
    expected = stats.ttest_rel([0.5, 0.7, 0.6], [0.45, 0.63, 0.5])
    interval = expected.confidence_interval(0.95)
    assert found[:4] == pytest.approx((0.22 / 3, interval.low, interval.high, expected.pvalue))
    assert found[4:] == (found.p, 1)


def test_unpaired_seeds_are_welchs() -> None:
    found = compare_unpaired(OURS, BASE)
    expected = stats.ttest_ind(list(OURS.values()), list(BASE.values()), equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert found[:4] == pytest.approx((0.5875 - 1.58 / 3, interval.low, interval.high, expected.pvalue))


@pytest.mark.filterwarnings("error")
def test_seeds_that_make_a_difference_on_one_side_alone() -> None:
    """As beside a bag of words, which has no chance in it."""
    constant = dict.fromkeys(range(3), 0.4)
    paired, unpaired = compare_seeds(constant, BASE), compare_unpaired(constant, BASE)
    assert paired.difference == pytest.approx(unpaired.difference) == pytest.approx(0.4 - 1.58 / 3)
    assert paired.p == pytest.approx(stats.ttest_1samp(list(BASE.values()), 0.4).pvalue)
    assert unpaired.p == pytest.approx(paired.p)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("test", "ours", "base", "reason"),
    [
        (compare_seeds, {0: 0.5}, BASE, "one side has a single seed"),
        (compare_unpaired, BASE, {0: 0.5}, "one side has a single seed"),
        (compare_seeds, {2: 0.5, 3: 0.6}, BASE, "fewer than two seeds are shared"),
        (compare_seeds, {seed: score + 0.1 for seed, score in BASE.items()}, BASE, "seeds make no difference"),
        (compare_unpaired, dict.fromkeys(range(2), 0.5), dict.fromkeys(range(3), 0.4), "seeds make no difference"),
    ],
)
def test_what_seeds_cannot_tell(
    test: Callable[..., Comparison], ours: dict[int, float], base: dict[int, float], reason: str
) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        test(ours, base)


def test_p_values_are_corrected_as_holm_does_it() -> None:
    """The example, computed by hand: .01 x 4, .02 x 3, .03 x 2 = .06 (not less than those before), .6 x 1."""
    assert holm([0.03, 0.01, 0.6, 0.02]) == pytest.approx([0.06, 0.04, 0.6, 0.06])
    assert holm([0.04, 0.03]) == pytest.approx([0.06, 0.06])
    assert holm([0.9, 0.8, 0.7]) == [1, 1, 1]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
