"""Random trees and DAGs with selections of their nodes, for tests against slow references."""

from __future__ import annotations

import torch
from hypothesis import settings
from hypothesis import strategies as st

from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.edges import ROOT

Edges = list[tuple[str, str]]

quick = settings(max_examples=80)

# D hangs under the root and under B; the edge A -> C spans two levels.
DAG_EDGES = [(ROOT, "A"), (ROOT, "D"), ("A", "B"), ("A", "C"), ("B", "C"), ("B", "D"), ("C", "E")]


def parents_of(edges: Edges, name: str) -> set[str]:
    return {parent for parent, child in edges if child == name}


@st.composite
def edge_lists(draw: st.DrawFn, *, max_parents: int) -> Edges:
    edges: Edges = []
    for child in range(draw(st.integers(1, 12))):
        parents = draw(st.sets(st.integers(-1, child - 1), min_size=1, max_size=max_parents))
        edges += [(ROOT if parent < 0 else f"n{parent}", f"n{child}") for parent in sorted(parents)]
    return draw(st.permutations(edges))


trees_or_dags = st.one_of(edge_lists(max_parents=1), edge_lists(max_parents=3))


@st.composite
def path_lists(draw: st.DrawFn, names: str = "abé") -> list[tuple[str, ...]]:
    """Paths with few names, so that many of them come again elsewhere; a beginning of a path may be another one."""
    paths = st.lists(st.sampled_from(names), min_size=1, max_size=4).map(tuple)
    return draw(st.lists(paths, min_size=1, max_size=12, unique=True))


@st.composite
def taxonomies_with_selections(draw: st.DrawFn) -> tuple[Taxonomy, list[set[str]]]:
    taxonomy = Taxonomy(draw(trees_or_dags))
    selections = draw(st.lists(st.sets(st.sampled_from(taxonomy.names)), min_size=1, max_size=4))
    return taxonomy, selections


def to_tensor(taxonomy: Taxonomy, selections: list[set[str]]) -> torch.Tensor:
    return torch.tensor([[name in selected for name in taxonomy.names] for selected in selections])


def to_names(taxonomy: Taxonomy, selected: torch.Tensor) -> set[str]:
    return {taxonomy.names[node] for node in selected.nonzero().flatten()}


def select(taxonomy: Taxonomy, *names: str) -> torch.Tensor:
    return to_tensor(taxonomy, [set(names)])[0]
