"""Probabilities made coherent or raised, against a slow reference and against prune and augment."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_taxonomies import DAG_EDGES, Edges, parents_of, quick, trees_or_dags

from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.edges import ROOT


@st.composite
def taxonomies_with_probabilities(draw: st.DrawFn) -> tuple[Taxonomy, torch.Tensor]:
    """A few documents; many probabilities are equal, some 0 or 1."""
    taxonomy = Taxonomy(draw(trees_or_dags))
    rows = st.lists(st.integers(0, 8), min_size=len(taxonomy), max_size=len(taxonomy))
    return taxonomy, torch.tensor(draw(st.lists(rows, min_size=1, max_size=4)), dtype=torch.float32) / 8


def slow_coherent(edges: Edges, probability: dict[str, float], name: str) -> float:
    if name == ROOT:
        return 1.0
    return min(probability[name], max(slow_coherent(edges, probability, p) for p in parents_of(edges, name)))


def test_coherent_lowers_a_node_to_its_parent_and_what_hangs_below(toy_taxonomy: Taxonomy) -> None:
    probabilities = torch.full((11,), 0.5)
    given = {"A": 0.25, "AA": 0.75, "AAA": 1.0, "AB": 0.125, "B": 1.0, "BB": 0.75}
    for name, probability in given.items():
        probabilities[toy_taxonomy.index[name]] = probability
    before = probabilities.clone()
    bounded = toy_taxonomy.coherent(probabilities)
    named = dict(zip(toy_taxonomy.names, bounded.tolist(), strict=True))
    expected = {"A": 0.25, "AA": 0.25, "AAA": 0.25, "AB": 0.125, "AC": 0.25, "B": 1.0, "BB": 0.75, "BA": 0.5, "C": 0.5}
    assert {name: named[name] for name in expected} == expected
    assert torch.equal(probabilities, before)


def test_coherent_looks_at_the_most_probable_parent_and_the_root_is_certain() -> None:
    taxonomy = Taxonomy(DAG_EDGES)
    probabilities = torch.tensor([0.5, 0.25, 0.875, 1.0, 0.75])
    assert taxonomy.names == ("A", "B", "D", "C", "E")
    # C has the parents A and B; D hangs under B and under the root.
    assert taxonomy.coherent(probabilities).tolist() == [0.5, 0.25, 0.875, 0.5, 0.5]


@quick
@given(taxonomies_with_probabilities())
def test_coherent_matches_the_reference(case: tuple[Taxonomy, torch.Tensor]) -> None:
    taxonomy, probabilities = case
    before = probabilities.clone()
    bounded = taxonomy.coherent(probabilities)
    assert torch.equal(probabilities, before)
    assert bounded.data_ptr() != probabilities.data_ptr()
    edges = list(taxonomy.edges)
    for row, result in zip(probabilities.tolist(), bounded.tolist(), strict=True):
        probability = dict(zip(taxonomy.names, row, strict=True))
        assert result == [slow_coherent(edges, probability, name) for name in taxonomy.names]


@quick
@given(taxonomies_with_probabilities(), st.sampled_from([0.0, 0.125, 0.3, 0.5, 0.875, 0.99, 1.0]))
def test_exceeding_a_threshold_after_coherent_is_pruning(case: tuple[Taxonomy, torch.Tensor], threshold: float) -> None:
    taxonomy, probabilities = case
    assert torch.equal(taxonomy.coherent(probabilities) > threshold, taxonomy.prune(probabilities > threshold))


@quick
@given(taxonomies_with_probabilities(), st.sampled_from([0.0, 0.125, 0.3, 0.5, 0.875, 0.99, 1.0]))
def test_exceeding_a_threshold_after_raised_is_augmenting(
    case: tuple[Taxonomy, torch.Tensor], threshold: float
) -> None:
    taxonomy, probabilities = case
    before = probabilities.clone()
    assert torch.equal(taxonomy.raised(probabilities) > threshold, taxonomy.augment(probabilities > threshold))
    assert torch.equal(probabilities, before)


@quick
@given(taxonomies_with_probabilities())
def test_coherent_is_idempotent_only_lowers_and_leaves_no_child_above_all_parents(
    case: tuple[Taxonomy, torch.Tensor],
) -> None:
    taxonomy, probabilities = case
    bounded = taxonomy.coherent(probabilities)
    assert torch.equal(taxonomy.coherent(bounded), bounded)
    assert (bounded <= probabilities).all()
    tops = {child for parent, child in taxonomy.edges if parent == ROOT}
    for node, parents in enumerate(taxonomy.parents):
        if taxonomy.names[node] in tops:
            assert torch.equal(bounded[:, node], probabilities[:, node])
        else:
            assert (bounded[:, node] <= bounded[:, list(parents)].amax(-1)).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_coherent_keeps_the_type(dtype: torch.dtype, toy_taxonomy: Taxonomy) -> None:
    assert toy_taxonomy.coherent(torch.rand(2, 11).to(dtype)).dtype == dtype


def test_coherent_of_a_single_node_is_itself() -> None:
    assert Taxonomy([(ROOT, "A")]).coherent(torch.tensor([0.25])).tolist() == [0.25]
