"""Thresholds chosen on validation: against brute force, in whole runs, and on two ranks."""

from __future__ import annotations

import itertools

import pytest
import torch
from conftest import TOY_EDGES
from hypothesis import given, settings
from hypothesis import strategies as st
from threshold_cases import CANDIDATES, DAG_EDGES, FLAT_EDGES, Case, cases, distance, random_case, reached
from torch import Tensor

from ptmt_lightning import thresholds
from ptmt_lightning.metrics import HierarchicalMetrics
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.thresholds import Tuning, tune_thresholds

# ---- against brute force ----


@settings(max_examples=20)
@given(case=cases(), prune=st.booleans())
def test_the_common_threshold_is_the_best_and_of_equals_nearest_to_one_half(case: Case, prune: bool) -> None:
    chosen = tune_thresholds(*case, tuning="global", prune=prune)
    assert chosen == [chosen[0]] * case.taxonomy.num_levels
    assert chosen[0] in CANDIDATES
    quality = {t: reached(case, [t] * case.taxonomy.num_levels, prune=prune) for t in CANDIDATES}
    best = [t for t in CANDIDATES if quality[t] == max(quality.values())]
    assert chosen[0] in best
    assert abs(chosen[0] - 0.5) == pytest.approx(min(abs(t - 0.5) for t in best))


@settings(max_examples=12)
@given(case=cases(), prune=st.booleans())
def test_thresholds_by_level_are_never_worse_and_no_single_change_helps(case: Case, prune: bool) -> None:
    common = tune_thresholds(*case, tuning="global", prune=prune)
    chosen = tune_thresholds(*case, tuning="level", prune=prune)
    quality = reached(case, chosen, prune=prune)
    assert len(chosen) == case.taxonomy.num_levels
    assert quality >= reached(case, common, prune=prune)
    if quality == reached(case, common, prune=prune):
        assert distance(chosen) <= distance(common) + 1e-9
    # The last level was changed last: nothing there is better, nor as good and nearer to 0.5.
    for candidate in CANDIDATES:
        other = [*chosen[:-1], candidate]
        assert reached(case, other, prune=prune) <= quality
        if reached(case, other, prune=prune) == quality:
            assert distance(other) >= distance(chosen) - 1e-9


@given(case=cases([FLAT_EDGES]), prune=st.booleans())
@settings(max_examples=15)
def test_on_one_level_both_ways_choose_the_same(case: Case, prune: bool) -> None:
    assert tune_thresholds(*case, tuning="level", prune=prune) == tune_thresholds(*case, tuning="global", prune=prune)


def test_levels_that_are_apart_get_the_thresholds_of_an_exhaustive_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Level 1 needs a high threshold, level 2 a low one; no common one does for both."""
    taxonomy = Taxonomy([("ROOT", "A"), ("ROOT", "B"), ("A", "AA"), ("B", "BA")])
    targets = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.bool)
    top, below = torch.where(targets[:, :2], 0.9, 0.7), torch.where(targets[:, 2:], 0.3, 0.1)
    case = Case(torch.cat([top, below], dim=1), targets, taxonomy)
    few = (0.2, 0.4, 0.5, 0.6, 0.8)
    monkeypatch.setattr(thresholds, "_CANDIDATES", few)
    for prune in (True, False):
        pairs = list(itertools.product(few, repeat=2))
        best = max(pairs, key=lambda pair: (reached(case, pair, prune=prune), -distance(pair)))
        assert reached(case, best, prune=prune) == 1
        assert tuple(tune_thresholds(*case, tuning="level", prune=prune)) == best == (0.8, 0.2)
        common = tune_thresholds(*case, tuning="global", prune=prune)
        assert reached(case, common, prune=prune) < 1


def test_the_choice_is_by_the_average_that_is_reported() -> None:
    taxonomy = Taxonomy([("ROOT", name) for name in "ABCD"])
    # A is found best at 0.5; below that B is found as well, and C and D, which never occur, come in.
    probabilities = torch.tensor([[0.9, 0.3, 0.35, 0.35], [0.6, 0.1, 0.1, 0.1]])
    targets = torch.tensor([[True, True, False, False], [True, False, False, False]])
    chosen = {
        classes: tune_thresholds(probabilities, targets, taxonomy, tuning="global", prune=True, classes=classes)
        for classes in ("present", "all")
    }
    for classes, [threshold, *_] in chosen.items():
        quality = {}
        for candidate in (threshold, 0.25, 0.5):
            metrics = HierarchicalMetrics(taxonomy, classes=classes)
            metrics.update(probabilities > candidate, targets, probabilities)
            quality[candidate] = metrics.compute().values["h_f1_macro"]
        assert quality[threshold] == max(quality.values())
    assert chosen["present"] == [0.5] != chosen["all"]


def test_pruning_is_part_of_the_choice() -> None:
    taxonomy = Taxonomy([("ROOT", "A"), ("A", "AA")])
    # AA never is true, but probable below a parent that is not predicted at 0.5: pruning drops it there.
    probabilities = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.3, 0.6]])
    targets = torch.tensor([[True, False], [True, False], [False, False]])
    pruned = tune_thresholds(probabilities, targets, taxonomy, tuning="global", prune=True)
    unpruned = tune_thresholds(probabilities, targets, taxonomy, tuning="global", prune=False)
    assert pruned == [0.5, 0.5]
    assert unpruned == pytest.approx([0.6, 0.6])


@pytest.mark.parametrize("tuning", ["global", "level"])
def test_a_probability_on_the_threshold_is_not_predicted(tuning: Tuning) -> None:
    probabilities, targets = torch.tensor([[0.525], [0.5]]), torch.tensor([[True], [False]])
    taxonomy = Taxonomy([("ROOT", "A")])
    assert tune_thresholds(probabilities, targets, taxonomy, tuning=tuning, prune=True) == [0.5]
    assert tune_thresholds(probabilities - 0.025, targets, taxonomy, tuning=tuning, prune=True) == [0.475]


@pytest.mark.parametrize("tuning", ["global", "level"])
@pytest.mark.parametrize("targets", [torch.zeros(3, 11).bool(), torch.ones(3, 11).bool()], ids=["none", "all"])
def test_where_every_threshold_is_as_good_it_is_one_half(
    tuning: Tuning, targets: Tensor, toy_taxonomy: Taxonomy
) -> None:
    probabilities = targets.float()
    assert tune_thresholds(probabilities, targets, toy_taxonomy, tuning=tuning, prune=True) == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("tuning", ["global", "level"])
@pytest.mark.parametrize("chunk", [1, 3, 7, 50])
def test_the_choice_does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch, tuning: Tuning, chunk: int) -> None:
    case = random_case(Taxonomy(TOY_EDGES), 20, seed=1, grain=1000)
    before = case.probabilities.clone(), case.targets.clone()
    expected = tune_thresholds(*case, tuning=tuning, prune=True)
    monkeypatch.setattr(thresholds, "_CHUNK", chunk)
    assert tune_thresholds(*case, tuning=tuning, prune=True) == expected
    assert torch.equal(case.probabilities, before[0])
    assert torch.equal(case.targets, before[1])


@given(st.integers(0, 1000))
@settings(max_examples=6)
def test_the_choice_does_not_depend_on_the_order_of_documents(seed: int) -> None:
    case = random_case(Taxonomy(DAG_EDGES), 9, seed)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    shuffled = Case(case.probabilities[order], case.targets[order], case.taxonomy)
    assert tune_thresholds(*shuffled, tuning="level", prune=True) == tune_thresholds(*case, tuning="level", prune=True)


# Not tested: model.metric_classes=all. The choice then is not that of the highest reported h_f1_macro, because
# tune_thresholds always averages over present classes.
