"""From selected nodes to label paths, and from paths to nodes."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from random_taxonomies import DAG_EDGES, Edges, parents_of, quick, taxonomies_with_selections, to_tensor

from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.edges import ROOT

# ---- nodes to paths ----


def slow_paths(edges: Edges, selected: set[str]) -> list[tuple[str, ...]]:
    def upwards(path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        above = parents_of(edges, path[0]) & selected
        if not above:
            yield path
        for parent in above:
            yield from upwards((parent, *path))

    ends = [name for name in selected if not any(name in parents_of(edges, below) for below in selected)]
    return [path for end in ends for path in upwards((end,))]


def label_path_names(taxonomy: Taxonomy, *names: str) -> list[list[str]]:
    paths = taxonomy.label_paths([taxonomy.index[name] for name in names])
    return [[taxonomy.names[node] for node in path] for path in paths]


def test_a_tree_has_one_path_for_each_leaf_of_the_selection(toy_taxonomy: Taxonomy) -> None:
    paths = label_path_names(toy_taxonomy, "A", "AA", "AAA", "AB", "C")
    assert paths == [["C"], ["A", "AB"], ["A", "AA", "AAA"]]


def test_a_dag_has_a_path_for_each_way() -> None:
    assert label_path_names(Taxonomy(DAG_EDGES), "A", "B", "C") == [["A", "C"], ["A", "B", "C"]]


def test_an_unpruned_orphan_starts_a_path(toy_taxonomy: Taxonomy) -> None:
    assert label_path_names(toy_taxonomy, "AA", "AAA", "B") == [["B"], ["AA", "AAA"]]


def test_no_nodes_have_no_paths(toy_taxonomy: Taxonomy) -> None:
    assert toy_taxonomy.label_paths([]) == []


@quick
@given(taxonomies_with_selections())
def test_label_paths_match_the_reference(case: tuple[Taxonomy, list[set[str]]]) -> None:
    taxonomy, selections = case
    for selected in selections:
        paths = [tuple(path) for path in label_path_names(taxonomy, *selected)]
        assert Counter(paths) == Counter(slow_paths(list(taxonomy.edges), selected))


@quick
@given(taxonomies_with_selections())
def test_paths_of_a_pruned_selection_encode_to_the_selection(case: tuple[Taxonomy, list[set[str]]]) -> None:
    taxonomy, selections = case
    for row in taxonomy.prune(to_tensor(taxonomy, selections)):
        nodes = row.nonzero().flatten().tolist()
        # A node under the root and under a kept node: its paths go through the latter, and encode() accepts both.
        paths = [[taxonomy.names[node] for node in path] for path in taxonomy.label_paths(nodes)]
        assert taxonomy.encode(paths) == nodes


# ---- paths to nodes ----


def test_encode_gives_sorted_nodes_without_repeats(toy_taxonomy: Taxonomy) -> None:
    nodes = toy_taxonomy.encode([["B", "BC"], ["A", "AA", "AAA"], ["A"]])
    assert nodes == sorted(toy_taxonomy.index[name] for name in ("A", "AA", "AAA", "B", "BC"))


@pytest.mark.parametrize("path", [["A", "C"], ["A", "B", "C"], ["D"], ["A", "B", "D"]])
def test_encode_takes_every_way_through_a_dag(path: list[str]) -> None:
    taxonomy = Taxonomy(DAG_EDGES)
    assert taxonomy.encode([path]) == sorted(taxonomy.index[name] for name in path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (["A", "AAB"], "label 'AAB' is not in the taxonomy (did you mean 'AB'?)"),
        (["nothing like it"], "label 'nothing like it' is not in the taxonomy"),
        (["A", "AAA"], "path 'A > AAA' skips a level above 'AAA'; expected each step to be an edge of the taxonomy, "
                       "here 'A > AA > AAA'"),
        (["AAA"], "path 'AAA' skips a level above 'AAA'; expected each step to be an edge of the taxonomy, "
                  "here 'A > AA > AAA'"),
        (["A", "BA"], "path 'A > BA' is not in the taxonomy: no edge from 'A' to 'BA', whose parent is 'B'"),
        (["A", "B"], "path 'A > B' is not in the taxonomy: no edge from 'A' to 'B', whose parent is 'ROOT'"),
        (["A", "A"], "path 'A > A' is not in the taxonomy"),
    ],
    ids=["typo", "unknown", "skips a level", "starts below the top", "wrong parent", "two tops", "repeats a label"],
)  # fmt: skip
def test_encode_refuses(path: list[str], message: str, toy_taxonomy: Taxonomy) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        toy_taxonomy.encode([path])


def test_an_unknown_label_without_a_near_one_gets_no_hint(toy_taxonomy: Taxonomy) -> None:
    with pytest.raises(ValueError, match=r"^label 'nothing like it' is not in the taxonomy$"):
        toy_taxonomy.encode([["nothing like it"]])


def test_a_wrong_parent_in_a_dag_names_all_parents() -> None:
    message = "no edge from 'D' to 'C', whose parent is 'A' or 'B'"
    with pytest.raises(ValueError, match=f"{message}$"):
        Taxonomy(DAG_EDGES).encode([["D", "C"]])


def test_a_wrong_path_in_a_dense_dag_is_refused_without_walking_every_way() -> None:
    layers = [[f"{level}{side}" for side in "ab"] for level in range(40)]
    steps = [(above, below) for i in range(39) for above in layers[i] for below in layers[i + 1]]
    taxonomy = Taxonomy([(ROOT, "0a"), (ROOT, "0b"), *steps, (ROOT, "apart")])

    def give_up(*_: object) -> None:
        pytest.fail("still looking for a way after 2 seconds")

    previous = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(2)
    try:
        with pytest.raises(ValueError, match=r"^path 'apart > 39a' is not in the taxonomy"):
            taxonomy.encode([["apart", "39a"]])
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
