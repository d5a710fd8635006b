"""Metrics against scikit-learn, and the tables beside them."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_references import Case, cases, computed, expected_values

import ptmt_lightning.metrics
from ptmt_lightning.metrics import Classes, HierarchicalMetrics, harmonic, per_label, reliability, scores
from ptmt_lightning.taxonomy import Taxonomy

# ---- values ----


@pytest.mark.parametrize("classes", ["present", "all"])
@settings(max_examples=15)
@given(case=st.one_of(cases(), cases(max_parents=3)))
def test_every_value_equals_scikit_learn(classes: Classes, case: Case) -> None:
    assert computed(case, classes).values == pytest.approx(expected_values(case, classes), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("classes", ["present", "all"])
@settings(max_examples=100)
@given(case=cases())
def test_the_harmonic_reading_is_never_lower(classes: Classes, case: Case) -> None:
    values = computed(case, classes).values
    assert values["h_f1_macro_harmonic"] >= values["h_f1_macro"] - 1e-12


def test_the_two_readings_differ_where_precision_and_recall_vary_over_classes() -> None:
    taxonomy = Taxonomy([("ROOT", "A"), ("ROOT", "B")])
    # A: precision 1, recall 1/2; B: precision 1/2, recall 1. F1 is 2/3 for both; the mean of each is 3/4.
    predicted = np.array([[True, True], [False, True]])
    targets = np.array([[True, True], [True, False]])
    values = computed(Case(taxonomy, predicted, targets)).values
    assert values["h_f1_macro"] == pytest.approx(2 / 3)
    assert values["h_f1_macro_harmonic"] == pytest.approx(3 / 4)


def test_empty_predictions_score_zero(toy_taxonomy: Taxonomy) -> None:
    metrics = HierarchicalMetrics(toy_taxonomy)
    metrics.update(torch.zeros(2, 11, dtype=torch.bool), torch.eye(11, dtype=torch.bool)[:2], torch.zeros(2, 11))
    values = metrics.compute().values
    assert values.pop("h_auprc") == pytest.approx(2 / 22)  # of equal scores: the share of true nodes
    assert set(values.values()) == {0.0}


def test_nothing_predicted_and_nothing_true_is_zero_but_an_exact_match(toy_taxonomy: Taxonomy) -> None:
    metrics = HierarchicalMetrics(toy_taxonomy)
    metrics.update(torch.zeros(2, 11, dtype=torch.bool), torch.zeros(2, 11, dtype=torch.bool), torch.zeros(2, 11))
    values = metrics.compute().values
    assert values.pop("exact_match") == 1
    assert set(values.values()) == {0.0}


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_documents_score_zero(toy_taxonomy: Taxonomy) -> None:
    assert set(HierarchicalMetrics(toy_taxonomy).compute().values.values()) == {0.0}


def test_a_perfect_prediction_scores_one_on_the_present_classes_only(toy_taxonomy: Taxonomy) -> None:
    targets = torch.zeros(1, 11, dtype=torch.bool)
    targets[0, toy_taxonomy.encode([["A", "AA"]])] = True
    present, everything = (HierarchicalMetrics(toy_taxonomy, classes=c) for c in ("present", "all"))
    present.update(targets, targets, targets.float())
    everything.update(targets, targets, targets.float())
    assert present.compute().values["h_f1_macro"] == 1
    assert everything.compute().values["h_f1_macro"] == pytest.approx(2 / 11)


def test_unknown_classes_are_refused(toy_taxonomy: Taxonomy) -> None:
    with pytest.raises(ValueError, match=r"model\.metric_classes='some': expected 'present' or 'all'"):
        HierarchicalMetrics(toy_taxonomy, classes="some")  # type: ignore[arg-type]


def test_harmonic_mean_of_zeros_is_zero() -> None:
    assert harmonic(torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)).item() == 0


def test_scores_are_float64_and_exact_for_large_counts() -> None:
    counts = torch.tensor([[2**40], [1], [0]])
    assert scores(counts).precision.dtype == torch.float64
    assert scores(counts).precision.item() == 2**40 / (2**40 + 1)


# ---- the tables, and the example ----


def test_per_label_table_has_one_row_a_node() -> None:
    taxonomy = Taxonomy([("ROOT", "A"), ("ROOT", "B"), ("A", "AA")])
    predicted = np.array([[True, False, True], [True, False, False], [True, False, False]])
    targets = np.array([[True, False, True], [True, False, True], [False, False, False]])
    rows = per_label(taxonomy, computed(Case(taxonomy, predicted, targets)).flat_counts)
    assert rows == [
        {"label": "A", "level": 1, "support": 2, "predicted": 3, "precision": 2 / 3, "recall": 1.0, "f1": 0.8},
        {"label": "B", "level": 1, "support": 0, "predicted": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0},
        {"label": "AA", "level": 2, "support": 2, "predicted": 1, "precision": 1.0, "recall": 0.5, "f1": 2 / 3},
    ]


def test_per_label_counts_are_flat_not_augmented(toy_taxonomy: Taxonomy) -> None:
    leaf = torch.zeros(1, 11, dtype=torch.bool)
    leaf[0, toy_taxonomy.index["AAA"]] = True
    metrics = HierarchicalMetrics(toy_taxonomy)
    metrics.update(leaf, leaf, leaf.float())
    rows = per_label(toy_taxonomy, metrics.compute().flat_counts)
    assert [row["label"] for row in rows if row["support"] or row["predicted"]] == ["AAA"]


def test_the_example_in_the_docstring_runs() -> None:
    result = doctest.testmod(ptmt_lightning.metrics, extraglobs={"torch": torch, "Taxonomy": Taxonomy})
    assert result.attempted > 0
    assert result.failed == 0


def test_reliability_counts_coherent_scores_of_augmented_labels(toy_taxonomy: Taxonomy) -> None:
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(200, len(toy_taxonomy), generator=generator)
    targets = torch.rand(200, len(toy_taxonomy), generator=generator) < 0.3
    metrics = HierarchicalMetrics(toy_taxonomy)
    for rows in torch.arange(200).split(70):
        metrics.update(probabilities[rows] > 0.5, targets[rows], probabilities[rows])
    bins = reliability(metrics.compute().scored)
    scores = toy_taxonomy.coherent(probabilities).flatten()
    true = toy_taxonomy.augment(targets).flatten()
    for row in bins:
        inside = (scores >= row["low"]) & (scores < row["high"])
        assert (row["labels"], row["true"]) == (inside.sum(), true[inside].sum())
        assert row["probability"] == pytest.approx(scores[inside].mean().item(), abs=1e-3)
    assert sum(row["labels"] for row in bins) == probabilities.numel()
