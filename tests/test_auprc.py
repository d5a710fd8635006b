"""The area under the precision-recall curve against scikit-learn, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from metric_references import Case, Matrix, cases, reference_auprc, toy_labels
from torch import Tensor

from ptmt_lightning.metrics import HierarchicalMetrics, average_precision
from ptmt_lightning.taxonomy import Taxonomy


@st.composite
def scored_cases(draw: st.DrawFn, max_parents: int = 1) -> tuple[Case, Matrix]:
    """A case, and probabilities that need not agree with its predictions; many are equal, some 0 or 1."""
    case = draw(cases(max_parents=max_parents))
    grain = draw(st.sampled_from([4, 1000, 2**20]))
    steps = draw(arrays(np.int64, case.predicted.shape, elements=st.integers(0, grain)))
    return case, (steps / grain).astype(np.float32)


def auprc(taxonomy: Taxonomy, probabilities: Tensor, targets: Tensor) -> float:
    """What the class under test makes of probabilities, of predictions at 0.5."""
    metrics = HierarchicalMetrics(taxonomy)
    metrics.update(probabilities > 0.5, targets, probabilities)
    return metrics.compute().values["h_auprc"]


@settings(max_examples=60)
@given(scored_cases=st.one_of(scored_cases(), scored_cases(max_parents=3)))
def test_h_auprc_equals_scikit_learn_on_binned_scores(scored_cases: tuple[Case, Matrix]) -> None:
    case, probabilities = scored_cases
    actual = auprc(case.taxonomy, torch.from_numpy(probabilities), torch.from_numpy(case.targets))
    assert actual == pytest.approx(reference_auprc(case.taxonomy, probabilities, case.targets), abs=1e-12)


@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
def test_bins_change_h_auprc_by_less_than_two_thousandths(toy_taxonomy: Taxonomy, spread: float) -> None:
    generator = torch.Generator().manual_seed(0)
    truth, noise = torch.randn(2, 2000, 11, generator=generator)
    targets = toy_taxonomy.augment(truth > 1)
    probabilities = (spread * (2 * targets - 1 + noise)).sigmoid()
    exact = reference_auprc(toy_taxonomy, probabilities.numpy(), targets.numpy(), num_bins=None)
    assert 0.5 < exact < 0.99
    assert auprc(toy_taxonomy, probabilities, targets) == pytest.approx(exact, abs=0.002)


def test_h_auprc_of_a_perfect_ranking_is_one_wherever_its_scores_are(toy_taxonomy: Taxonomy) -> None:
    targets = toy_taxonomy.augment(toy_labels(20, 11)[1])
    for true, other in ((1.0, 0.0), (0.999, 0.998), (0.02, 0.01)):
        probabilities = torch.where(targets, true, other)
        assert auprc(toy_taxonomy, probabilities, targets) == 1
    assert auprc(toy_taxonomy, 1 - targets.float(), targets) < 0.5


def test_h_auprc_does_not_see_the_predictions_and_the_others_not_the_probabilities(toy_taxonomy: Taxonomy) -> None:
    predicted, targets, probabilities = toy_labels(30, 11)
    first, other_predictions, other_probabilities = (HierarchicalMetrics(toy_taxonomy) for _ in range(3))
    first.update(predicted, targets, probabilities)
    other_predictions.update(~predicted, targets, probabilities)
    other_probabilities.update(predicted, targets, 1 - probabilities)
    assert not (predicted == targets).all(-1).any()  # no exact match, neither of these nor of their opposites
    assert not (predicted != targets).all(-1).any()
    values, of_other_predictions = first.compute().values, other_predictions.compute().values
    of_other_probabilities = other_probabilities.compute().values
    assert {name for name in values if values[name] == of_other_predictions[name]} == {"h_auprc", "exact_match"}
    assert {name for name in values if values[name] != of_other_probabilities[name]} == {"h_auprc"}


@given(case=st.one_of(cases(), cases(max_parents=3)), threshold=st.sampled_from([0.0, 0.25, 0.5, 0.731, 0.9]))
def test_micro_h_precision_and_recall_at_a_threshold_lie_on_the_curve(case: Case, threshold: float) -> None:
    """The curve is that of pruned predictions: its point at a threshold is what the other metrics report there."""
    generator = torch.Generator().manual_seed(case.predicted.size)
    probabilities = torch.rand(case.predicted.shape, generator=generator, dtype=torch.float64)
    probabilities = (probabilities * 1000).floor() / 1000 + 0.0005  # mid-bin: no score shares a bin with the threshold
    targets = torch.from_numpy(case.targets)
    metrics = HierarchicalMetrics(case.taxonomy)
    metrics.update(case.taxonomy.prune(probabilities > threshold), targets, probabilities)
    values = metrics.compute().values
    hits, misses = metrics.scored[:, round(1000 * threshold) :].sum(-1).tolist()
    num_true = int(case.taxonomy.augment(targets).sum())
    assert values["h_precision_micro"] == pytest.approx(hits / (hits + misses) if hits + misses else 0.0)
    assert values["h_recall_micro"] == pytest.approx(hits / num_true if num_true else 0.0)


def test_a_short_cut_under_the_root_keeps_its_score_and_gives_it_to_its_parent() -> None:
    taxonomy = Taxonomy([("ROOT", "A"), ("A", "B"), ("ROOT", "B"), ("A", "C")])
    probabilities = torch.tensor([[0.1, 0.9, 0.8]])  # B stays at 0.9, A counts with it; C comes down to 0.1
    only_b = torch.tensor([[False, True, False]])
    assert taxonomy.augment(only_b).tolist() == [[True, True, False]]
    assert auprc(taxonomy, probabilities, only_b) == 1
    only_a = torch.tensor([[True, False, False]])
    assert auprc(taxonomy, probabilities, only_a) == pytest.approx(1 / 2)  # first A and B together


def test_average_precision_of_nothing_true_is_zero() -> None:
    assert average_precision(torch.tensor([[0, 0, 0], [1, 2, 3]])).item() == 0


def test_average_precision_by_hand() -> None:
    # From the highest: 1 true and 1 other, then 2 true, then 1 true and 4 other.
    scored = torch.tensor([[1, 2, 1], [4, 0, 1]])
    expected = 1 / 4 * 1 / 2 + 2 / 4 * 3 / 4 + 1 / 4 * 4 / 9
    assert average_precision(scored).item() == pytest.approx(expected)
