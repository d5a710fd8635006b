"""Prune, augment and coherent on batches of any shape, and on 30,000 nodes."""

from __future__ import annotations

import pytest
import torch
from conftest import TOY_EDGES
from random_taxonomies import DAG_EDGES, Edges, to_names

from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.edges import ROOT


@pytest.mark.parametrize("method", ["prune", "augment"])
@pytest.mark.parametrize("edges", [TOY_EDGES, DAG_EDGES], ids=["tree", "dag"])
def test_leading_dimensions_are_kept(method: str, edges: Edges) -> None:
    taxonomy = Taxonomy(edges)
    selected_23V = torch.rand(2, 3, len(taxonomy), generator=torch.Generator().manual_seed(0)) < 0.5
    apply = getattr(taxonomy, method)
    one_by_one = torch.stack([apply(row) for row in selected_23V.flatten(0, 1)]).unflatten(0, (2, 3))
    assert torch.equal(apply(selected_23V), one_by_one)


@pytest.mark.parametrize("edges", [TOY_EDGES, DAG_EDGES], ids=["tree", "dag"])
def test_coherent_keeps_leading_dimensions(edges: Edges) -> None:
    taxonomy = Taxonomy(edges)
    probabilities_23V = torch.rand(2, 3, len(taxonomy), generator=torch.Generator().manual_seed(0))
    one_by_one = torch.stack([taxonomy.coherent(row) for row in probabilities_23V.flatten(0, 1)]).unflatten(0, (2, 3))
    assert torch.equal(taxonomy.coherent(probabilities_23V), one_by_one)
    assert taxonomy.coherent(probabilities_23V[0, :0]).shape == (0, len(taxonomy))


@pytest.mark.parametrize("method", ["prune", "augment"])
def test_an_empty_batch_stays_empty(method: str, toy_taxonomy: Taxonomy) -> None:
    assert getattr(toy_taxonomy, method)(torch.zeros(0, 11, dtype=torch.bool)).shape == (0, 11)


@pytest.fixture(scope="module")
def large() -> Taxonomy:
    """30,000 nodes; node i > 0 hangs under node (i - 1) // 20 of the file."""
    return Taxonomy([(ROOT, "n0"), *((f"n{(i - 1) // 20}", f"n{i}") for i in range(1, 30_000))])


def test_a_large_taxonomy_is_built(large: Taxonomy) -> None:
    assert len(large) == 30_000
    assert large.level_sizes == (1, 20, 400, 8000, 21_579)
    assert large.parents[large.index["n29999"]] == (large.index["n1499"],)


def test_a_large_taxonomy_prunes_a_batch(large: Taxonomy) -> None:
    predicted = torch.ones(8, 30_000, dtype=torch.bool)
    predicted[3, large.index["n1"]] = False
    kept = large.prune(predicted)
    assert kept[[0, 1, 2, 4, 5, 6, 7]].all()
    assert not kept[3, [large.index[name] for name in ("n1", "n21", "n40", "n421", "n8421")]].any()
    assert kept[3, [large.index[name] for name in ("n0", "n2", "n41", "n841", "n16821")]].all()
    assert int((~kept[3]).sum()) == 1 + 20 + 400 + 8000


def test_a_large_taxonomy_augments_a_batch(large: Taxonomy) -> None:
    labels = torch.zeros(8, 30_000, dtype=torch.bool)
    labels[5, large.index["n8421"]] = True
    grown = large.augment(labels)
    assert to_names(large, grown[5]) == {"n0", "n1", "n21", "n421", "n8421"}
    assert int(grown.sum()) == 5


def test_a_large_taxonomy_bounds_a_batch(large: Taxonomy) -> None:
    probabilities = torch.ones(8, 30_000)
    probabilities[3, large.index["n1"]] = 0.5
    bounded = large.coherent(probabilities)
    assert torch.equal(bounded < 1, ~large.prune(probabilities > 0.5))
    assert int((bounded == 0.5).sum()) == 1 + 1 * 20 + 400 + 8000
