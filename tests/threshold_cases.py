"""Probabilities and truths for which thresholds are chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from ptmt_lightning.metrics import HierarchicalMetrics
from ptmt_lightning.taxonomy import Taxonomy

CANDIDATES = [i / 40 for i in range(1, 40)]

DAG_EDGES = [("ROOT", "A"), ("ROOT", "B"), ("A", "C"), ("B", "C"), ("ROOT", "D"), ("B", "D"), ("C", "E"), ("D", "E")]
TREE_EDGES = [("ROOT", "A"), ("ROOT", "B"), ("A", "AA"), ("A", "AB"), ("B", "BA"), ("AA", "AAA")]
FLAT_EDGES = [("ROOT", "A"), ("ROOT", "B"), ("ROOT", "C")]


class Case(NamedTuple):
    """What thresholds are chosen on."""

    probabilities: Tensor  # [N, V]
    targets: Tensor  # bool [N, V]
    taxonomy: Taxonomy


def random_case(taxonomy: Taxonomy, num_documents: int, seed: int, grain: int = 40) -> Case:
    """Probabilities that say something about the truth; with grain 40 many lie exactly on a candidate."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.rand(num_documents, len(taxonomy), generator=generator) < 0.4
    noise = torch.rand(num_documents, len(taxonomy), generator=generator)
    return Case(((0.3 * targets + 0.7 * noise) * grain).floor() / grain, targets, taxonomy)


@st.composite
def cases(draw: st.DrawFn, edges: Sequence[list[tuple[str, str]]] = (TREE_EDGES, DAG_EDGES, FLAT_EDGES)) -> Case:
    taxonomy = Taxonomy(draw(st.sampled_from(edges)))
    num_documents, seed = draw(st.integers(1, 6)), draw(st.integers(0, 10_000))
    return random_case(taxonomy, num_documents, seed, draw(st.sampled_from([4, 40, 1000])))


def reached(case: Case, chosen: Sequence[float], *, prune: bool) -> float:
    """The ``h_f1_macro`` of thresholds, by way of what runs report; equal ones are equal in each digit given."""
    limits = torch.tensor([chosen[level - 1] for level in case.taxonomy.levels])
    predicted = case.probabilities > limits
    metrics = HierarchicalMetrics(case.taxonomy)
    metrics.update(case.taxonomy.prune(predicted) if prune else predicted, case.targets, case.probabilities)
    return round(metrics.compute().values["h_f1_macro"], 12)


def distance(chosen: Sequence[float]) -> float:
    return sum(abs(threshold - 0.5) for threshold in chosen)
