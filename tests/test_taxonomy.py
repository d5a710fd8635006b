"""The taxonomy against slow references in plain Python, on random trees and DAGs."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import SHARED, TOY_EDGES
from hypothesis import given, settings
from hypothesis import strategies as st

from ptmt_lightning.taxonomy import ROOT, Taxonomy

Edges = list[tuple[str, str]]

quick = settings(max_examples=80)

# D hangs under the root and under B; the edge A -> C spans two levels.
DAG_EDGES = [(ROOT, "A"), (ROOT, "D"), ("A", "B"), ("A", "C"), ("B", "C"), ("B", "D"), ("C", "E")]


# ---- slow references, on names ----


def parents_of(edges: Edges, name: str) -> set[str]:
    return {parent for parent, child in edges if child == name}


def slow_level(edges: Edges, name: str) -> int:
    return 0 if name == ROOT else 1 + max(slow_level(edges, parent) for parent in parents_of(edges, name))


def slow_prune(edges: Edges, selected: set[str]) -> set[str]:
    kept = set(selected)
    while unsupported := {name for name in kept if not parents_of(edges, name) & (kept | {ROOT})}:
        kept -= unsupported
    return kept


def slow_augment(edges: Edges, selected: set[str]) -> set[str]:
    grown = set(selected)
    while missing := {parent for name in grown for parent in parents_of(edges, name)} - grown - {ROOT}:
        grown |= missing
    return grown


def slow_paths(edges: Edges, selected: set[str]) -> list[tuple[str, ...]]:
    def upwards(path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        above = parents_of(edges, path[0]) & selected
        if not above:
            yield path
        for parent in above:
            yield from upwards((parent, *path))

    ends = [name for name in selected if not any(name in parents_of(edges, below) for below in selected)]
    return [path for end in ends for path in upwards((end,))]


# ---- random taxonomies and selections ----


@st.composite
def edge_lists(draw: st.DrawFn, *, max_parents: int) -> Edges:
    edges: Edges = []
    for child in range(draw(st.integers(1, 12))):
        parents = draw(st.sets(st.integers(-1, child - 1), min_size=1, max_size=max_parents))
        edges += [(ROOT if parent < 0 else f"n{parent}", f"n{child}") for parent in sorted(parents)]
    return draw(st.permutations(edges))


trees_or_dags = st.one_of(edge_lists(max_parents=1), edge_lists(max_parents=3))


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


# ---- order, levels, slices ----


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


# ---- prune ----


def test_prune_drops_a_node_without_its_parent_and_what_hangs_below(toy_taxonomy: Taxonomy) -> None:
    predicted = select(toy_taxonomy, "AA", "AAA", "B", "BB", "C")
    assert to_names(toy_taxonomy, toy_taxonomy.prune(predicted)) == {"B", "BB", "C"}


def test_prune_gives_a_new_tensor(toy_taxonomy: Taxonomy) -> None:
    predicted = select(toy_taxonomy, "AA")
    assert not toy_taxonomy.prune(predicted).any()
    assert to_names(toy_taxonomy, predicted) == {"AA"}


def test_prune_never_drops_a_node_under_the_root_and_under_another() -> None:
    taxonomy = Taxonomy(DAG_EDGES)
    assert to_names(taxonomy, taxonomy.prune(select(taxonomy, "D"))) == {"D"}


def test_prune_keeps_a_node_that_one_parent_of_several_supports() -> None:
    taxonomy = Taxonomy(DAG_EDGES)
    assert to_names(taxonomy, taxonomy.prune(select(taxonomy, "A", "C", "E"))) == {"A", "C", "E"}
    assert to_names(taxonomy, taxonomy.prune(select(taxonomy, "B", "C", "E"))) == set()


@quick
@given(taxonomies_with_selections())
def test_prune_matches_the_reference(case: tuple[Taxonomy, list[set[str]]]) -> None:
    taxonomy, selections = case
    kept = taxonomy.prune(to_tensor(taxonomy, selections))
    assert [to_names(taxonomy, row) for row in kept] == [slow_prune(list(taxonomy.edges), s) for s in selections]


@quick
@given(taxonomies_with_selections())
def test_prune_is_idempotent_and_only_drops(case: tuple[Taxonomy, list[set[str]]]) -> None:
    taxonomy, selections = case
    predicted = to_tensor(taxonomy, selections)
    kept = taxonomy.prune(predicted)
    assert torch.equal(taxonomy.prune(kept), kept)
    assert not (kept & ~predicted).any()


@quick
@given(taxonomies_with_selections())
def test_every_kept_node_has_a_kept_parent_or_hangs_under_the_root(case: tuple[Taxonomy, list[set[str]]]) -> None:
    taxonomy, selections = case
    for row in taxonomy.prune(to_tensor(taxonomy, selections)):
        kept = to_names(taxonomy, row) | {ROOT}
        assert all(parents_of(list(taxonomy.edges), name) & kept for name in kept - {ROOT})


# ---- augment ----


def test_augment_adds_all_ancestors(toy_taxonomy: Taxonomy) -> None:
    labels = select(toy_taxonomy, "AAA", "BC")
    assert to_names(toy_taxonomy, toy_taxonomy.augment(labels)) == {"A", "AA", "AAA", "B", "BC"}
    assert to_names(toy_taxonomy, labels) == {"AAA", "BC"}


def test_augment_follows_every_parent_in_a_dag() -> None:
    taxonomy = Taxonomy(DAG_EDGES)
    assert to_names(taxonomy, taxonomy.augment(select(taxonomy, "E"))) == {"A", "B", "C", "E"}


@quick
@given(taxonomies_with_selections())
def test_augment_matches_the_reference(case: tuple[Taxonomy, list[set[str]]]) -> None:
    taxonomy, selections = case
    grown = taxonomy.augment(to_tensor(taxonomy, selections))
    assert [to_names(taxonomy, row) for row in grown] == [slow_augment(list(taxonomy.edges), s) for s in selections]


@quick
@given(taxonomies_with_selections())
def test_augment_is_idempotent_and_only_adds(case: tuple[Taxonomy, list[set[str]]]) -> None:
    taxonomy, selections = case
    labels = to_tensor(taxonomy, selections)
    grown = taxonomy.augment(labels)
    assert torch.equal(taxonomy.augment(grown), grown)
    assert not (labels & ~grown).any()


@quick
@given(taxonomies_with_selections())
def test_prune_leaves_an_augmented_selection_alone(case: tuple[Taxonomy, list[set[str]]]) -> None:
    taxonomy, selections = case
    grown = taxonomy.augment(to_tensor(taxonomy, selections))
    assert torch.equal(taxonomy.prune(grown), grown)


# ---- coherent ----


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


# ---- shapes and sizes ----


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


# ---- paths ----


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


# ---- files ----


def test_json_round_trip_keeps_the_node_order(tmp_path: Path) -> None:
    taxonomy = Taxonomy([*reversed(DAG_EDGES), (ROOT, "Übung & “Mehr”")])
    taxonomy.to_json(tmp_path / "taxonomy.json")
    again = Taxonomy.from_json(tmp_path / "taxonomy.json")
    assert again.names == taxonomy.names
    assert again.edges == taxonomy.edges
    assert again.parents == taxonomy.parents


@quick
@given(edges=trees_or_dags)
def test_json_round_trip_of_any_taxonomy(edges: Edges, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "taxonomy.json"
    Taxonomy(edges).to_json(path)
    assert Taxonomy.from_json(path).names == Taxonomy(edges).names


@pytest.mark.parametrize(
    "content",
    [
        b"ROOT\tA\nA\tAA\n",
        b"ROOT\tA\nA\tAA",
        b"\xef\xbb\xbfROOT\tA\nA\tAA\n",
        b"ROOT\tA\r\nA\tAA\r\n",
        b"ROOT\tA\nA\tAA\n\n\n",
        b" ROOT \t A\nA\tAA \n",
    ],
    ids=["plain", "no last newline", "byte order mark", "CRLF", "blank lines at the end", "spaces round names"],
)
def test_tsv_is_read(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.tsv"
    path.write_bytes(content)
    assert Taxonomy.from_tsv(path).edges == ((ROOT, "A"), ("A", "AA"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ROOT\tA\nB\tC\n", ":2: 'B' has no way to the root; add an edge from its parent, "
                             "or 'ROOT<TAB>B' if it is a top node"),
        (b"ROOT\tA\nA\tB\nROOT\tA\n", ":3: duplicate edge 'ROOT' -> 'A', first on line 1; delete one of the two"),
        (b"", ": the file is empty; expected one 'parent<TAB>child' edge a line, top nodes under ROOT"),
        (b"\n\n", ": the file is empty; expected one 'parent<TAB>child' edge a line"),
        (b"ROOT\tA\nA AA\n", ":2: expected 'parent<TAB>child', got 'A AA'"),
        (b"ROOT\tA\nA\tAA\tAAA\n", r":2: expected 'parent<TAB>child', got 'A\tAA\tAAA'"),
        (b"ROOT\tA\n\tAA\nA\tB\n", r":2: expected 'parent<TAB>child', got '\tAA'"),
        (b"ROOT\tA\n\nA\tAA\n", ":2: expected 'parent<TAB>child', got ''"),
        (b"ROOT\tA\nA\t\xff\n", ": invalid UTF-8 at byte 9; save the file as UTF-8"),
        (b"A\tB\nB\tA\n", ": no edge starts at ROOT; add 'ROOT<TAB>NAME' for each top node"),
    ],
    ids=["no way to the root", "duplicate", "empty", "blank lines only",
         "no tab", "three fields", "empty name", "blank line inside", "not UTF-8", "no root"],
)  # fmt: skip
def test_a_bad_tsv_is_refused_with_file_and_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.tsv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path) + message)}"):
        Taxonomy.from_tsv(path)


@pytest.mark.parametrize(
    ("edges", "cycle"),
    [
        ([(ROOT, "A"), ("A", "B"), ("C", "A"), ("B", "C"), ("C", "D")], ["A", "B", "C"]),
        ([(ROOT, "A"), ("A", "A")], ["A"]),
        ([(ROOT, "A"), ("A", ROOT)], [ROOT, "A"]),
    ],
    ids=["three nodes", "self-loop", "through the root"],
)
def test_a_cycle_is_shown_with_the_line_of_its_last_edge(edges: Edges, cycle: list[str], tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.tsv"
    path.write_text("".join(f"{parent}\t{child}\n" for parent, child in edges))
    rotations = [[*cycle[i:], *cycle[: i + 1]] for i in range(len(cycle))]
    lines = [edges.index((shown[-2], shown[-1])) + 1 for shown in rotations]
    messages = [
        re.escape(f"{path}:{line}: cycle {' -> '.join(shown)}; delete one of these edges")
        for line, shown in zip(lines, rotations, strict=True)
    ]
    with pytest.raises(ValueError, match=f"^({'|'.join(messages)})$"):
        Taxonomy.from_tsv(path)


def test_a_missing_tsv_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.tsv"
    message = f"{path}: no such file; expected the taxonomy as one 'parent<TAB>child' edge a line"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Taxonomy.from_tsv(path)


def test_no_edges_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^edges: no edges; expected at least one, top nodes under ROOT$"):
        Taxonomy([])
