"""Order and levels of a taxonomy's nodes."""

from __future__ import annotations

import pytest
import torch
from conftest import SHARED
from hypothesis import given
from random_taxonomies import DAG_EDGES, Edges, parents_of, quick, trees_or_dags

from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.edges import ROOT


def slow_level(edges: Edges, name: str) -> int:
    return 0 if name == ROOT else 1 + max(slow_level(edges, parent) for parent in parents_of(edges, name))


def test_nodes_are_ordered_by_level_and_within_it_as_in_the_file(toy_taxonomy: Taxonomy) -> None:
    assert toy_taxonomy.names == ("A", "B", "C", "AA", "AB", "AC", "BA", "BB", "BC", "CA", "AAA")
    assert toy_taxonomy.index["AAA"] == 10
    assert len(toy_taxonomy) == 11


def test_levels_and_slices_of_a_tree(toy_taxonomy: Taxonomy) -> None:
    assert toy_taxonomy.num_levels == 3
    assert toy_taxonomy.level_sizes == (3, 7, 1)
    assert toy_taxonomy.level_slices == (slice(0, 3), slice(3, 10), slice(10, 11))
    assert toy_taxonomy.levels == (1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 3)


def test_parents_are_node_numbers_and_leave_out_the_root(toy_taxonomy: Taxonomy) -> None:
    assert toy_taxonomy.parents == ((), (), (), (0,), (0,), (0,), (1,), (1,), (1,), (2,), (3,))


def test_level_in_a_dag_is_the_longest_path() -> None:
    taxonomy = Taxonomy(DAG_EDGES)
    levels = dict(zip(taxonomy.names, taxonomy.levels, strict=True))
    assert levels == {"A": 1, "B": 2, "C": 3, "D": 3, "E": 4}
    assert taxonomy.level_sizes == (1, 1, 2, 1)


def test_children_may_come_before_their_parents_in_the_file() -> None:
    taxonomy = Taxonomy([("AA", "AAA"), ("A", "AA"), (ROOT, "A")])
    assert taxonomy.names == ("A", "AA", "AAA")


def test_a_single_node_is_a_taxonomy() -> None:
    taxonomy = Taxonomy([(ROOT, "A")])
    assert taxonomy.level_slices == (slice(0, 1),)
    assert taxonomy.prune(torch.tensor([True])).tolist() == [True]
    assert taxonomy.augment(torch.tensor([False])).tolist() == [False]


@quick
@given(trees_or_dags)
def test_levels_match_the_reference(edges: Edges) -> None:
    taxonomy = Taxonomy(edges)
    assert list(taxonomy.levels) == [slow_level(edges, name) for name in taxonomy.names]
    assert sorted(taxonomy.names) == sorted({child for _, child in edges})


@quick
@given(trees_or_dags)
def test_slices_cover_the_nodes_level_by_level(edges: Edges) -> None:
    taxonomy = Taxonomy(edges)
    for level, (nodes, size) in enumerate(zip(taxonomy.level_slices, taxonomy.level_sizes, strict=True), start=1):
        assert taxonomy.levels[nodes] == (level,) * size
    assert sum(taxonomy.level_sizes) == len(taxonomy)


@quick
@given(trees_or_dags)
def test_every_parent_is_on_a_level_above(edges: Edges) -> None:
    taxonomy = Taxonomy(edges)
    for node, parents in enumerate(taxonomy.parents):
        assert all(taxonomy.levels[parent] < taxonomy.levels[node] for parent in parents)


@pytest.mark.parametrize(
    ("name", "level_sizes"),
    [("wos", (7, 138)), ("bgc", (7, 46, 77, 16)), ("bugs", (17, 85)), ("amazon", (5, 25))],
)
def test_level_sizes_of_the_benchmarks(name: str, level_sizes: tuple[int, ...]) -> None:
    path = SHARED / "taxonomies" / f"{name}.tsv"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    assert Taxonomy.from_tsv(path).level_sizes == level_sizes
