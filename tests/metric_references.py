"""Every metric by scikit-learn, on labels augmented by a slow walk up the parents; and cases to compare on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, precision_score, recall_score
from torch import Tensor

from ptmt_lightning.metrics import Classes, HierarchicalMetrics, MetricValues
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
