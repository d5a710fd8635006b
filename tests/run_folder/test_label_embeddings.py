"""Neighbours of label-token embeddings against plain loops."""

from __future__ import annotations

import math
from functools import partial

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from largest_tensor import LargestTensor
from random_taxonomies import trees_or_dags

from ptmt_lightning.run_folder import label_embeddings
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.edges import ROOT

EDGES = [(ROOT, "A"), (ROOT, "B"), ("A", "a1"), ("A", "a2"), ("A", "a3"), ("B", "b1"), ("B", "b2")]
# D has two parents, so it is a sibling of both their children; E is alone under its parent
DAG_EDGES = [(ROOT, "A"), (ROOT, "B"), (ROOT, "C"), ("A", "X"), ("A", "D"), ("B", "D"), ("B", "Y"), ("C", "E")]


def slow_share(embeddings: torch.Tensor, taxonomy: Taxonomy) -> float:
    rows = embeddings.double() - embeddings.double().mean(dim=0)
    hits = []
    for node, parents in enumerate(taxonomy.parents):
        rest = [n for n in range(len(taxonomy)) if n != node and taxonomy.levels[n] == taxonomy.levels[node]]
        brothers = {n for n in rest if set(parents) & set(taxonomy.parents[n])}
        if brothers:
            nearest = max(rest, key=lambda n: torch.cosine_similarity(rows[node], rows[n], dim=0).item())
            hits.append(nearest in brothers)
    return sum(hits) / len(hits)


@pytest.mark.parametrize("edges", [EDGES, DAG_EDGES])
@given(seed=st.integers(0, 10_000))
@settings(max_examples=30)
def test_sibling_share_equals_the_plain_loop(edges: list[tuple[str, str]], seed: int) -> None:
    taxonomy = Taxonomy(edges)
    embeddings = torch.randn(len(taxonomy), 5, generator=torch.Generator().manual_seed(seed))
    assert label_embeddings.sibling_share(embeddings, taxonomy) == pytest.approx(slow_share(embeddings, taxonomy))


def test_sibling_share_is_one_for_clusters_and_zero_for_strangers() -> None:
    taxonomy = Taxonomy(EDGES)
    clusters = torch.tensor([[1.0, 0], [-1, 0], [1, 0.1], [1, 0.2], [1, 0.3], [-1, 0.1], [-1, 0.2]])
    assert label_embeddings.sibling_share(clusters, taxonomy) == 1
    pairs = Taxonomy([(ROOT, "A"), (ROOT, "B"), ("A", "a1"), ("A", "a2"), ("B", "b1"), ("B", "b2")])
    crossed = torch.tensor([[1.0, 0], [-1, 0], [1, 0.1], [-1, 0.1], [1, 0.1], [-1, 0.1]])
    assert label_embeddings.sibling_share(crossed, pairs) == 0


def test_a_common_part_of_all_embeddings_does_not_count() -> None:
    taxonomy, embeddings = Taxonomy(EDGES), torch.randn(7, 5)
    torch.testing.assert_close(
        label_embeddings.centred(embeddings + 100), label_embeddings.centred(embeddings), atol=1e-3, rtol=0
    )
    assert label_embeddings.sibling_share(embeddings, taxonomy) == label_embeddings.sibling_share(
        embeddings + 8, taxonomy
    )


def test_chance_is_the_mean_share_of_random_embeddings() -> None:
    taxonomy = Taxonomy(EDGES)
    # a1..a3 have 2 siblings of 4 others, b1 and b2 have 1
    assert label_embeddings.chance(taxonomy) == pytest.approx((3 * 2 / 4 + 2 * 1 / 4) / 5)
    generator = torch.Generator().manual_seed(0)
    draws = [
        label_embeddings.sibling_share(torch.randn(7, 64, generator=generator), taxonomy) for _ in range(400)
    ]  # fmt: skip
    assert sum(draws) / len(draws) == pytest.approx(0.4, abs=0.05)


def test_where_no_label_has_a_sibling_there_is_no_share() -> None:
    taxonomy = Taxonomy([(ROOT, "A"), (ROOT, "B"), ("A", "a"), ("B", "b")])
    embeddings = torch.randn(4, 3)
    assert math.isnan(label_embeddings.sibling_share(embeddings, taxonomy))
    assert set(label_embeddings.summary(embeddings, embeddings, taxonomy).values()) == {None}


def test_table_names_the_neighbours_of_the_same_level() -> None:
    taxonomy = Taxonomy(EDGES)
    before, after = torch.randn(7, 5), torch.randn(7, 5)
    table = label_embeddings.table(before, after, taxonomy).set_index("label")
    assert table["parent"].to_dict() == {"A": "ROOT", "B": "ROOT"} | {n: n[0].upper() for n in table.index[2:]}
    assert table[["x", "y"]].notna().all(axis=None)
    rows = after - after.mean(dim=0)
    cosines = torch.cosine_similarity(rows[:, None], rows, dim=-1)
    for name in ("a1", "b2"):
        node = taxonomy.index[name]
        order = sorted(range(2, 7), key=lambda n: -cosines[node, n].item())
        order.remove(node)
        assert [table.at[name, f"after_{rank}"] for rank in (1, 2, 3)] == [taxonomy.names[n] for n in order[:3]]
        assert table.at[name, "after_1_cosine"] == pytest.approx(cosines[node, order[0]].item(), abs=1e-4)
        assert table.at[name, "after_1_sibling"] == (taxonomy.names[order[0]][0] == name[0])
    assert table.at["A", "after_1"] == "B"
    assert pd.isna(table.at["A", "after_2"])  # level 1 has no third node
    assert not table.at["A", "after_1_sibling"]
    again = label_embeddings.table(before, after, taxonomy).set_index("label")
    assert table.equals(again)  # the map has a seed


def test_a_taxonomy_of_two_labels_has_a_table() -> None:
    taxonomy = Taxonomy([(ROOT, "A"), ("A", "a")])
    table = label_embeddings.table(torch.randn(2, 4), torch.randn(2, 4), taxonomy)
    assert len(table) == 2


@given(edges=trees_or_dags)
@settings(max_examples=50)
def test_families_are_the_nodes_of_a_level_with_a_common_parent(edges: list[tuple[str, str]]) -> None:
    taxonomy = Taxonomy(edges)
    families = label_embeddings.Families(taxonomy)
    for node, parents in enumerate(taxonomy.parents):
        level = taxonomy.level_slices[taxonomy.levels[node] - 1]
        related = {other for other in range(level.start, level.stop) if set(parents) & set(taxonomy.parents[other])}
        assert families.of(node) == related


@pytest.fixture
def large() -> tuple[torch.Tensor, Taxonomy]:
    """3,000 labels, a tenth of them top nodes, below each nine."""
    taxonomy = Taxonomy([(ROOT, f"{n}") for n in range(300)] + [(f"{n % 300}", f"{n}") for n in range(300, 3000)])
    return torch.randn(3000, 16, generator=torch.Generator().manual_seed(0)), taxonomy


def test_neighbours_of_many_labels_are_those_of_all_pairs_in_little_memory(
    large: tuple[torch.Tensor, Taxonomy], monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings, taxonomy = large
    monkeypatch.setattr(label_embeddings, "_CELLS", 100_000)
    nodes = torch.arange(1, 3000, 2)
    with LargestTensor() as largest:  # type: ignore[no-untyped-call]
        found = label_embeddings.neighbours(embeddings, taxonomy, nodes)
    assert largest.size <= 100_000
    levels = torch.tensor(taxonomy.levels)
    rows = torch.nn.functional.normalize(embeddings - embeddings.mean(dim=0), dim=-1)
    pairs = (rows @ rows.T).masked_fill(levels[:, None] != levels, -torch.inf).fill_diagonal_(-torch.inf)
    cosines, near = pairs[nodes].topk(3, dim=1)
    torch.testing.assert_close(found.cosines, cosines)
    assert torch.equal(found.nodes, near)


def test_of_a_large_taxonomy_a_sample_has_rows_and_their_neighbours_are_of_all(
    large: tuple[torch.Tensor, Taxonomy], monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings, taxonomy = large
    whole = partial(label_embeddings.table, -embeddings, embeddings, taxonomy)
    monkeypatch.setattr(label_embeddings, "_project", lambda rows: rows[:, :2])
    monkeypatch.setattr(label_embeddings, "_SAMPLE", 3000)
    every, share, chance = whole(), label_embeddings.sibling_share(embeddings, taxonomy), 8 / 2699
    assert len(every) == 3000
    assert label_embeddings.chance(taxonomy) == pytest.approx(chance)
    monkeypatch.setattr(label_embeddings, "_SAMPLE", 500)
    some = whole()
    assert len(some) == 500
    assert some["level"].value_counts()[1] == pytest.approx(50, abs=20)
    pd.testing.assert_frame_equal(some, every.set_index("label").loc[some["label"]].reset_index()[list(some)])
    assert label_embeddings.sibling_share(embeddings, taxonomy) == pytest.approx(share, abs=0.02)
    assert label_embeddings.chance(taxonomy) == pytest.approx(chance)
