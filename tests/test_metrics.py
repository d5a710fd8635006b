"""Metrics against scikit-learn, on labels augmented by a slow walk up the parents."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, precision_score, recall_score
from torch import Tensor, distributed, multiprocessing

import ptmt_lightning.metrics
from ptmt_lightning.metrics import (
    Classes,
    HierarchicalMetrics,
    MetricValues,
    average_precision,
    harmonic,
    per_label,
    reliability,
    scores,
)
from ptmt_lightning.taxonomy import Taxonomy

Matrix = npt.NDArray[Any]  # [B, V]


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
    predicted, targets = torch.from_numpy(case.predicted), torch.from_numpy(case.targets)
    metrics.update(predicted, targets, predicted.float())
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


def slow_coherent(taxonomy: Taxonomy, probabilities: Matrix) -> Matrix:
    """No node above its most probable parent; one document and one node at a time, parents first."""
    tops = {child for parent, child in taxonomy.edges if parent == "ROOT"}
    result = probabilities.copy()
    for row in result:
        for node, parents in enumerate(taxonomy.parents):
            if taxonomy.names[node] not in tops:
                row[node] = min(row[node], max(row[parent] for parent in parents))
    return result


def slow_raised(taxonomy: Taxonomy, probabilities: Matrix) -> Matrix:
    """Every node as probable as its most probable descendant; children first."""
    result = probabilities.copy()
    for row in result:
        for node in reversed(range(len(taxonomy))):
            for parent in taxonomy.parents[node]:
                row[parent] = max(row[parent], row[node])
    return result


def reference_auprc(
    taxonomy: Taxonomy, probabilities: Matrix, targets: Matrix, *, num_bins: int | None = 1000
) -> float:
    """Average precision of scikit-learn over all documents and nodes together; without bins for None."""
    true = augmented(taxonomy, targets).ravel()
    if not true.any():
        return 0.0
    ranked = slow_raised(taxonomy, slow_coherent(taxonomy, probabilities)).ravel()
    if num_bins is not None:
        ranked = np.minimum((ranked * np.float32(num_bins)).astype(int), num_bins - 1)
    return float(average_precision_score(true, ranked))


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
        "h_auprc": reference_auprc(case.taxonomy, case.predicted.astype(np.float32), case.targets),
        "exact_match": float(accuracy_score(exact[1], exact[0])),
    }
    for level in range(1, case.taxonomy.num_levels + 1):
        nodes = [node for node, of_node in enumerate(case.taxonomy.levels) if of_node == level]
        level_scores = reference(case.predicted[:, nodes], case.targets[:, nodes], classes)
        values[f"f1_macro_level_{level}"] = level_scores.macro_f1
        values[f"f1_micro_level_{level}"] = level_scores.micro_f1
    return values


def toy_labels(num_documents: int, num_nodes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random predictions, truth and probabilities, always the same."""
    generator = torch.Generator().manual_seed(0)
    predicted, targets = torch.rand(2, num_documents, num_nodes, generator=generator) < 0.3
    return predicted, targets, torch.rand(num_documents, num_nodes, generator=generator)


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


# ---- the area under the precision-recall curve ----


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


# ---- accumulation ----


def test_several_updates_equal_one(toy_taxonomy: Taxonomy) -> None:
    predicted, targets, probabilities = toy_labels(17, 11)
    once, often = HierarchicalMetrics(toy_taxonomy), HierarchicalMetrics(toy_taxonomy)
    once.update(predicted, targets, probabilities)
    for rows in torch.arange(17).split(5):
        often.update(predicted[rows], targets[rows], probabilities[rows])
    assert often.compute().values == once.compute().values
    assert torch.equal(often.compute().flat_counts, once.compute().flat_counts)


def test_reset_forgets_everything(toy_taxonomy: Taxonomy) -> None:
    predicted, targets, probabilities = toy_labels(6, 11)
    used, fresh = HierarchicalMetrics(toy_taxonomy), HierarchicalMetrics(toy_taxonomy)
    used.update(~predicted, targets, 1 - probabilities)
    used.reset()
    used.update(predicted, targets, probabilities)
    fresh.update(predicted, targets, probabilities)
    assert used.compute().values == fresh.compute().values


def test_computed_counts_stay_when_the_metric_is_reset(toy_taxonomy: Taxonomy) -> None:
    predicted, targets, probabilities = toy_labels(6, 11)
    metrics = HierarchicalMetrics(toy_taxonomy)
    metrics.update(predicted, targets, probabilities)
    counts = metrics.compute().flat_counts
    before = counts.clone()
    metrics.update(predicted, targets, probabilities)
    metrics.reset()
    assert torch.equal(counts, before)


def test_update_leaves_its_arguments_alone(toy_taxonomy: Taxonomy) -> None:
    predicted, targets, probabilities = toy_labels(6, 11)
    before = predicted.clone(), targets.clone(), probabilities.clone()
    HierarchicalMetrics(toy_taxonomy).update(predicted, targets, probabilities)
    assert torch.equal(predicted, before[0])
    assert torch.equal(targets, before[1])
    assert torch.equal(probabilities, before[2])


def compute_on_rank(
    rank: int, folder: Path, taxonomy: Taxonomy, predicted: Tensor, targets: Tensor, probabilities: Tensor
) -> None:
    """One of two processes: counts its share of the documents, and writes what both together compute."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=2)
    metrics = HierarchicalMetrics(taxonomy)
    for row in range(rank, len(predicted), 2):
        metrics.update(predicted[row : row + 1], targets[row : row + 1], probabilities[row : row + 1])
    values, flat_counts, _ = metrics.compute()
    result = {"values": values, "flat_counts": flat_counts.tolist(), "own_documents": metrics.num_documents.item()}
    (folder / f"{rank}.json").write_text(json.dumps(result))
    distributed.destroy_process_group()


def test_two_processes_compute_exactly_what_one_does(toy_taxonomy: Taxonomy, tmp_path: Path) -> None:
    predicted, targets, probabilities = toy_labels(9, 11)
    one = HierarchicalMetrics(toy_taxonomy)
    one.update(predicted, targets, probabilities)
    values, flat_counts, _ = one.compute()
    arguments = (tmp_path, toy_taxonomy, predicted, targets, probabilities)
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
