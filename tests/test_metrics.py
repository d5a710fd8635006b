"""Metrics against scikit-learn, on labels augmented by a slow walk up the parents."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score
from torch import Tensor, distributed, multiprocessing

import ptmt_lightning.metrics
from ptmt_lightning.metrics import Classes, HierarchicalMetrics, MetricValues, harmonic, per_label, scores
from ptmt_lightning.taxonomy import Taxonomy

Matrix = npt.NDArray[np.bool_]


class Case(NamedTuple):
    """A taxonomy with predictions and truth ``[B, V]`` on it."""

    taxonomy: Taxonomy
    predicted: Matrix
    targets: Matrix


@st.composite
def cases(draw: st.DrawFn, max_parents: int = 1) -> Case:
    """Random trees (DAGs for more than one parent) and random, also inconsistent, label matrices."""
    num_nodes = draw(st.integers(1, 9))
    names = ["ROOT", *(f"N{node}" for node in range(1, num_nodes + 1))]
    edges = []
    for node in range(1, num_nodes + 1):
        parents = draw(st.sets(st.integers(0, node - 1), min_size=1, max_size=max_parents))
        edges.extend((names[parent], names[node]) for parent in sorted(parents))
    taxonomy = Taxonomy(edges)
    shape = (draw(st.integers(1, 8)), num_nodes)
    return Case(taxonomy, draw(arrays(bool, shape)), draw(arrays(bool, shape)))


def computed(case: Case, classes: Classes = "present") -> MetricValues:
    """What the class under test makes of a case in one update."""
    metrics = HierarchicalMetrics(case.taxonomy, classes=classes)
    metrics.update(torch.from_numpy(case.predicted), torch.from_numpy(case.targets))
    return metrics.compute()


def augmented(taxonomy: Taxonomy, labels: Matrix) -> Matrix:
    """Labels and all of their ancestors, one document and one node at a time."""
    result = np.zeros_like(labels)
    for document, row in enumerate(labels):
        waiting = [node for node, is_set in enumerate(row) if is_set]
        while waiting:
            node = waiting.pop()
            result[document, node] = True
            waiting.extend(taxonomy.parents[node])
    return result


class Reference(NamedTuple):
    """The averages of scikit-learn."""

    macro_precision: float
    macro_recall: float
    macro_f1: float
    micro_precision: float
    micro_recall: float
    micro_f1: float


def reference(predicted: Matrix, targets: Matrix, classes: Classes) -> Reference:
    """Averages of scikit-learn's scores per class."""
    counted = (predicted | targets).any(axis=0) if classes == "present" else np.ones(predicted.shape[1], dtype=bool)
    # One more class that never occurs: scikit-learn takes a single column for a binary problem.
    predicted, targets = (np.pad(labels, ((0, 0), (0, 1))).astype(int) for labels in (predicted, targets))
    functions = (precision_score, recall_score, f1_score)
    per_class = [function(targets, predicted, average=None, zero_division=0)[:-1] for function in functions]
    means = [float(values[counted].mean()) if counted.any() else 0.0 for values in per_class]
    totals = [float(function(targets, predicted, average="micro", zero_division=0)) for function in functions]
    return Reference(*means, *totals)


def expected_values(case: Case, classes: Classes) -> dict[str, float]:
    """Every metric, from scikit-learn."""
    flat = reference(case.predicted, case.targets, classes)
    augmented_pair = [augmented(case.taxonomy, labels) for labels in (case.predicted, case.targets)]
    hierarchical = reference(augmented_pair[0], augmented_pair[1], classes)
    precision, recall = hierarchical.macro_precision, hierarchical.macro_recall
    exact = [np.pad(labels, ((0, 0), (0, 1))).astype(int) for labels in (case.predicted, case.targets)]
    values = {
        "h_f1_macro": hierarchical.macro_f1,
        "h_f1_macro_harmonic": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "h_f1_micro": hierarchical.micro_f1,
        "h_precision_micro": hierarchical.micro_precision,
        "h_recall_micro": hierarchical.micro_recall,
        "f1_macro": flat.macro_f1,
        "f1_micro": flat.micro_f1,
        "exact_match": float(accuracy_score(exact[1], exact[0])),
    }
    for level in range(1, case.taxonomy.num_levels + 1):
        nodes = [node for node, of_node in enumerate(case.taxonomy.levels) if of_node == level]
        level_scores = reference(case.predicted[:, nodes], case.targets[:, nodes], classes)
        values[f"f1_macro_level_{level}"] = level_scores.macro_f1
        values[f"f1_micro_level_{level}"] = level_scores.micro_f1
    return values


def toy_labels(num_documents: int, num_nodes: int) -> tuple[Tensor, Tensor]:
    """Random predictions and truth, always the same."""
    generator = torch.Generator().manual_seed(0)
    predicted, targets = torch.rand(2, num_documents, num_nodes, generator=generator) < 0.3
    return predicted, targets


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
    metrics.update(torch.zeros(2, 11, dtype=torch.bool), torch.eye(11, dtype=torch.bool)[:2])
    assert set(metrics.compute().values.values()) == {0.0}


def test_nothing_predicted_and_nothing_true_is_zero_but_an_exact_match(toy_taxonomy: Taxonomy) -> None:
    metrics = HierarchicalMetrics(toy_taxonomy)
    metrics.update(torch.zeros(2, 11, dtype=torch.bool), torch.zeros(2, 11, dtype=torch.bool))
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
    present.update(targets, targets)
    everything.update(targets, targets)
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


# ---- accumulation ----


def test_several_updates_equal_one(toy_taxonomy: Taxonomy) -> None:
    predicted, targets = toy_labels(17, 11)
    once, often = HierarchicalMetrics(toy_taxonomy), HierarchicalMetrics(toy_taxonomy)
    once.update(predicted, targets)
    for rows in torch.arange(17).split(5):
        often.update(predicted[rows], targets[rows])
    assert often.compute().values == once.compute().values
    assert torch.equal(often.compute().flat_counts, once.compute().flat_counts)


def test_reset_forgets_everything(toy_taxonomy: Taxonomy) -> None:
    predicted, targets = toy_labels(6, 11)
    used, fresh = HierarchicalMetrics(toy_taxonomy), HierarchicalMetrics(toy_taxonomy)
    used.update(~predicted, targets)
    used.reset()
    used.update(predicted, targets)
    fresh.update(predicted, targets)
    assert used.compute().values == fresh.compute().values


def test_computed_counts_stay_when_the_metric_is_reset(toy_taxonomy: Taxonomy) -> None:
    predicted, targets = toy_labels(6, 11)
    metrics = HierarchicalMetrics(toy_taxonomy)
    metrics.update(predicted, targets)
    counts = metrics.compute().flat_counts
    before = counts.clone()
    metrics.update(predicted, targets)
    metrics.reset()
    assert torch.equal(counts, before)


def test_update_leaves_its_arguments_alone(toy_taxonomy: Taxonomy) -> None:
    predicted, targets = toy_labels(6, 11)
    before = predicted.clone(), targets.clone()
    HierarchicalMetrics(toy_taxonomy).update(predicted, targets)
    assert torch.equal(predicted, before[0])
    assert torch.equal(targets, before[1])


def compute_on_rank(rank: int, folder: Path, taxonomy: Taxonomy, predicted: Tensor, targets: Tensor) -> None:
    """One of two processes: counts its share of the documents, and writes what both together compute."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=2)
    metrics = HierarchicalMetrics(taxonomy)
    for row in range(rank, len(predicted), 2):
        metrics.update(predicted[row : row + 1], targets[row : row + 1])
    values, flat_counts = metrics.compute()
    result = {"values": values, "flat_counts": flat_counts.tolist(), "own_documents": metrics.num_documents.item()}
    (folder / f"{rank}.json").write_text(json.dumps(result))
    distributed.destroy_process_group()


def test_two_processes_compute_exactly_what_one_does(toy_taxonomy: Taxonomy, tmp_path: Path) -> None:
    predicted, targets = toy_labels(9, 11)
    one = HierarchicalMetrics(toy_taxonomy)
    one.update(predicted, targets)
    values, flat_counts = one.compute()
    arguments = (tmp_path, toy_taxonomy, predicted, targets)
    multiprocessing.start_processes(compute_on_rank, args=arguments, nprocs=2, start_method="fork")
    for rank, own_documents in enumerate((5, 4)):
        result = json.loads((tmp_path / f"{rank}.json").read_text())
        assert result == {"values": values, "flat_counts": flat_counts.tolist(), "own_documents": own_documents}


# ---- the table, and the example ----


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
    metrics.update(leaf, leaf)
    rows = per_label(toy_taxonomy, metrics.compute().flat_counts)
    assert [row["label"] for row in rows if row["support"] or row["predicted"]] == ["AAA"]


def test_the_example_in_the_docstring_runs() -> None:
    result = doctest.testmod(ptmt_lightning.metrics, extraglobs={"torch": torch, "Taxonomy": Taxonomy})
    assert result.attempted > 0
    assert result.failed == 0
