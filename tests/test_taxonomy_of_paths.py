"""Taxonomies whose nodes are paths, so that several nodes may share a label."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from random_taxonomies import edge_lists, parents_of, path_lists, quick

from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.edges import ROOT

PATHS = [
    ("Laptop", "Battery", "Cells"),
    ("Phone", "Battery"),
    ("Phone", "Screen"),
    ("Other", "Other"),
    ("Laptop", "Other"),
]
SHOP = Taxonomy.from_paths(PATHS)


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def beginnings(paths: list[tuple[str, ...]]) -> set[tuple[str, ...]]:
    return {path[:end] for path in paths for end in range(1, len(path) + 1)}


def label_path_of(taxonomy: Taxonomy, node: int) -> tuple[str, ...]:
    above = taxonomy.parents[node]
    return (*(label_path_of(taxonomy, above[0]) if above else ()), taxonomy.labels[node])


# ---- names and labels ----


def test_a_label_of_several_nodes_is_named_by_its_path() -> None:
    assert SHOP.names == (
        "Laptop", "Phone", "Other", "Laptop > Battery", "Phone > Battery", "Screen", "Other > Other", "Laptop > Other",
        "Cells",
    )  # fmt: skip
    assert SHOP.labels == (
        "Laptop", "Phone", "Other", "Battery", "Battery", "Screen", "Other", "Other", "Cells",
    )  # fmt: skip


@quick
@given(path_lists())
def test_each_path_is_a_node_of_its_own(paths: list[tuple[str, ...]]) -> None:
    taxonomy = Taxonomy.from_paths(paths)
    assert {label_path_of(taxonomy, node) for node in range(len(taxonomy))} == beginnings(paths)
    assert len(set(taxonomy.names)) == len(taxonomy) == len(beginnings(paths))


@pytest.mark.parametrize(
    "paths",
    [[("A", "B"), ("B",), ("A > B",)], [("A > B", "C"), ("A", "B > C"), ("C",), ("B > C",)]],
    ids=["a label like a path", "two paths"],
)
def test_paths_that_read_the_same_are_refused(paths: list[tuple[str, ...]]) -> None:
    message = r"^paths: the paths \[.*\] and \[.*\] both read 'A > B.*'; expected names that tell them apart; rename"
    with pytest.raises(ValueError, match=message):
        Taxonomy.from_paths(paths)


def test_a_label_with_the_separator_in_it_is_fine_where_it_is_clear() -> None:
    taxonomy = Taxonomy.from_paths([("R > S", "Other"), ("A", "Other")])
    assert taxonomy.names == ("R > S", "A", "R > S > Other", "A > Other")
    assert taxonomy.encode([["R > S", "Other"]]) == [0, 2]


# ---- encode ----


@quick
@given(path_lists(), st.data())
def test_encode_and_label_paths_are_inverse(paths: list[tuple[str, ...]], data: st.DataObject) -> None:
    taxonomy = Taxonomy.from_paths(paths)
    chosen = data.draw(st.lists(st.sampled_from(sorted(beginnings(paths)))))
    nodes = taxonomy.encode(chosen)
    assert {label_path_of(taxonomy, node) for node in nodes} == beginnings(chosen)
    longest = [taxonomy.path_names(path) for path in taxonomy.label_paths(nodes)]
    assert taxonomy.encode(longest) == nodes


@quick
@given(path_lists(), st.data())
def test_paths_of_any_selection_are_read_back(paths: list[tuple[str, ...]], data: st.DataObject) -> None:
    """Those too that begin below the top, as of predictions that are not pruned."""
    taxonomy = Taxonomy.from_paths(paths)
    nodes = data.draw(st.sets(st.sampled_from(range(len(taxonomy)))))
    for path in taxonomy.label_paths(nodes):
        assert taxonomy.path_nodes(taxonomy.path_names(path)) == path


def test_a_path_from_below_the_top_begins_with_the_whole_path_of_its_node() -> None:
    nodes = [SHOP.index["Laptop > Battery"], SHOP.index["Cells"], SHOP.index["Phone"], SHOP.index["Phone > Battery"]]
    shown = [SHOP.path_names(path) for path in SHOP.label_paths(nodes)]
    assert shown == [["Phone", "Battery"], ["Laptop > Battery", "Cells"]]


def test_encode_takes_unique_names_too() -> None:
    assert SHOP.encode([["Phone", "Phone > Battery"]]) == SHOP.encode([["Phone", "Battery"]])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (["Phone", "Batery"], "label 'Batery' is not in the taxonomy (did you mean 'Battery'?)"),
        (["Battery"], "path 'Battery' skips a level above 'Battery'; expected each step to be an edge of the "
                      "taxonomy, here 'Laptop > Battery'"),
        (["Phone", "Cells"], "path 'Phone > Cells' is not in the taxonomy: no edge from 'Phone' to 'Cells', whose "
                             "parent is 'Laptop > Battery'"),
        (["Phone", "Other"], "path 'Phone > Other' is not in the taxonomy: no edge from 'Phone' to 'Other', whose "
                             "parent is 'Other' or 'Laptop' or 'ROOT'"),
        (["Laptop", "Cells"], "path 'Laptop > Cells' skips a level above 'Cells'; expected each step to be an edge of "
                              "the taxonomy, here 'Laptop > Battery > Cells'"),
        (["Laptop", "Phone > Battery"], "path 'Laptop > Phone > Battery' is not in the taxonomy: no edge from 'Laptop' "
                                        "to 'Phone > Battery', whose parent is 'Phone'"),
    ],
    ids=["typo", "starts below the top", "wrong parent", "wrong parent of many", "skips a level", "wrong name"],
)  # fmt: skip
def test_encode_refuses(path: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SHOP.encode([path])


# ---- files ----


@quick
@given(paths=path_lists())
def test_the_form_with_paths_is_read_as_it_was_written(
    paths: list[tuple[str, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "paths.tsv"
    taxonomy = Taxonomy.from_paths(paths)
    taxonomy.to_tsv(path)
    again = Taxonomy.from_tsv(path)
    assert (again.names, again.labels, again.parents) == (taxonomy.names, taxonomy.labels, taxonomy.parents)
    assert again.fingerprint == taxonomy.fingerprint


@quick
@given(edges=edge_lists(max_parents=1))
def test_both_forms_of_a_tree_of_unique_names_are_one_taxonomy(
    edges: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    def path_to(name: str) -> tuple[str, ...]:
        (above,) = parents_of(edges, name)
        return (name,) if above == ROOT else (*path_to(above), name)

    folder = tmp_path_factory.getbasetemp()
    of_edges = Taxonomy.from_tsv(written(folder / "edges.tsv", "".join(f"{a}\t{b}\n" for a, b in edges)))
    of_edges.to_tsv(folder / "of_edges.tsv")
    again = Taxonomy.from_tsv(folder / "of_edges.tsv")
    assert again.fingerprint == of_edges.fingerprint
    assert again.labels == again.names == of_edges.names
    # As a user would write it: the leaves alone.
    leaves = [name for _, name in edges if not any(parent == name for parent, _ in edges)]
    of_leaves = Taxonomy.from_paths([path_to(leaf) for leaf in leaves])
    assert set(of_leaves.edges) == set(edges)


@quick
@given(paths=path_lists())
def test_json_keeps_names_and_labels(paths: list[tuple[str, ...]], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "taxonomy.json"
    taxonomy = Taxonomy.from_paths(paths)
    taxonomy.to_json(path)
    assert Taxonomy.from_json(path).fingerprint == taxonomy.fingerprint
    assert ("labels" in json.loads(path.read_text())) == (taxonomy.labels != taxonomy.names)


@pytest.mark.parametrize(
    "content",
    [
        "level1\tlevel2\tlevel3\nA\tB\tC\nD\tB\t\n",
        "level1\tlevel2\tlevel3\nA\nA\tB\nA\tB\tC\nD\tB\n",
        "level1\tlevel2\tlevel3\r\nA\tB\tC\r\nD\t\t\r\nD\tB\t\t\t\r\n\r\n",
        "\ufefflevel1\tlevel2\tlevel3\nA\tB\tC\nD\tB",
        "level1\tlevel2\tlevel3\tlevel4\nA\tB\tC\nD\tB\n",
    ],
    ids=["ragged", "with ancestors", "as of a spreadsheet", "byte-order mark", "a level without a name"],
)
def test_the_form_with_paths_is_read(content: str, tmp_path: Path) -> None:
    taxonomy = Taxonomy.from_tsv(written(tmp_path / "taxonomy.tsv", content))
    assert taxonomy.names == ("A", "D", "A > B", "D > B", "C")
    assert taxonomy.edges[:3] == ((ROOT, "A"), ("A", "A > B"), ("A > B", "C"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("level1\tlevel3\nA\tB\n", r":1: header 'level1\tlevel3': expected 'level1<TAB>level2<TAB>...', one column a "
                                   "level from level1 on; name the columns so"),
        ("level2\tlevel3\nA\tB\n", r":1: header 'level2\tlevel3': expected 'level1<TAB>level2<TAB>...'"),
        ("Level 1\tLevel 2\nA\tB\n", r":1: header 'Level 1\tLevel 2': expected 'level1<TAB>level2<TAB>...'"),
        ("level1\t\tlevel3\nA\tB\n", r":1: header 'level1\t\tlevel3': expected 'level1<TAB>level2<TAB>...'"),
        ("A\tB\tC\n", r":1: expected 'parent<TAB>child', got 'A\tB\tC'; for whole paths, let the file begin with the "
                      "line 'level1<TAB>level2<TAB>...'"),
        ("level1\tlevel2\n", ": no path below the header; expected one a line; add them"),
        ("level1\tlevel2\nA\tB\nC\nA\tB\n", ":4: duplicate path 'A > B', first on line 2; delete one of the two"),
        ("level1\nCafe\u0301\nCaf\u00e9\n", ":3: duplicate path 'Caf\u00e9', first on line 2; delete one of the two"),
        ("level1\tlevel2\nA\tB\tC\n", r":2: 3 cells, got 'A\tB\tC'; expected at most 2, as the header has; add "
                                      "columns to the header, or shorten the path"),
        ("level1\tlevel2\tlevel3\nA\t\tC\n", ":2: level2='': expected a name; fill it in, or let the path end above"),
        ("level1\tlevel2\tlevel3\nA\t \tC\n", ":2: level2=' ': expected a name; fill it in, or let the path end above"),
        ("level1\tlevel2\nA\t B\n", ":2: level2=' B': expected a name without blanks around it; remove them"),
        ("level1\tlevel2\nROOT\tB\n", ":2: level1='ROOT': ROOT stands for what is above all paths; begin the path "
                                      "below it, or rename the label"),
        ("level1\tlevel2\nA\n\nB\n", ":3: expected one path a line, a name in each cell, got ''"),
    ],
    ids=["column missing", "first column missing", "other names", "column without a name", "no header", "no path",
         "duplicate", "duplicate in another Unicode form", "too many cells", "hole", "blank hole", "blanks", "root",
         "blank line"],
)  # fmt: skip
def test_bad_paths_are_refused_with_file_and_line(content: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "taxonomy.tsv", content)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path) + message)}"):
        Taxonomy.from_tsv(path)


@quick
@given(content=st.text("AB\u0301 >\t\n\r", max_size=30).map("level1\tlevel2\tlevel3\n".__add__))
def test_any_text_below_a_header_is_a_tree_or_refused_by_name(
    content: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = written(tmp_path_factory.getbasetemp() / "any.tsv", content)
    try:
        taxonomy = Taxonomy.from_tsv(path)
    except ValueError as error:
        assert re.fullmatch(f"{re.escape(str(path))}:.*", str(error))  # noqa: PT017
    else:
        assert all(len(parents) + (node in taxonomy.tops) == 1 for node, parents in enumerate(taxonomy.parents))


def test_an_edge_between_nodes_that_are_named_like_columns_stays_an_edge(tmp_path: Path) -> None:
    content = "ROOT\tlevel1\nlevel1\tlevel2\n"
    assert Taxonomy.from_tsv(written(tmp_path / "taxonomy.tsv", content)).names == ("level1", "level2")


def test_a_node_with_two_parents_has_no_path_of_its_own(tmp_path: Path) -> None:
    taxonomy = Taxonomy([(ROOT, "A"), (ROOT, "B"), ("A", "C"), ("B", "C")])
    with pytest.raises(ValueError, match=r"^'C' has several parents; expected a tree; write its edges instead$"):
        taxonomy.to_tsv(tmp_path / "taxonomy.tsv")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"AA": 1}, r"expected \{'edges': .*; restore the file$"),
        ({"X": "Y"}, "a label of 'X', which no edge names; remove it$"),
        ({"AA": "C", "AB": "C"}, "two labels 'C' below 'A'; rename one$"),
    ],
    ids=["not strings", "of no node", "not unique below a parent"],
)
def test_a_json_file_with_wrong_labels_is_refused(labels: dict[str, object], message: str, tmp_path: Path) -> None:
    content = {"edges": [[ROOT, "A"], ["A", "AA"], ["A", "AB"]], "labels": labels}
    path = written(tmp_path / "taxonomy.json", json.dumps(content))
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: {message}"):
        Taxonomy.from_json(path)


# ---- Unicode ----


@pytest.mark.parametrize("header", ["", "level1\tlevel2\n"], ids=["edges", "paths"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_are_read_in_one_unicode_form(header: str, form: str, tmp_path: Path) -> None:
    edges = "level1\tlevel2\nCafé\tThé\n" if header else "ROOT\tCafé\nCafé\tThé\n"
    taxonomy = Taxonomy.from_tsv(written(tmp_path / "taxonomy.tsv", normalize(form, edges)))
    assert taxonomy.names == ("Caf\u00e9", "Th\u00e9")
    assert taxonomy.encode([[normalize("NFD", "Café"), normalize("NFC", "Thé")]]) == [0, 1]


@quick
@given(path_lists(), st.sampled_from(["NFC", "NFD"]))
def test_labels_are_found_in_any_unicode_form(paths: list[tuple[str, ...]], form: str) -> None:
    assume(any("é" in path for path in paths))
    taxonomy = Taxonomy.from_paths(paths)
    spelt = [[normalize(form, name) for name in path] for path in paths]
    assert taxonomy.encode(spelt) == taxonomy.encode(paths)
    assert Taxonomy.from_paths(spelt).fingerprint == taxonomy.fingerprint


# ---- what was ----


def test_the_fingerprint_of_unique_names_is_as_in_earlier_versions() -> None:
    """Checkpoints hold it."""
    edges = [(ROOT, "A"), (ROOT, "B"), *pairwise(["A", "Ä", "AAA"])]
    assert Taxonomy(edges).fingerprint == Taxonomy.from_paths([("A", "Ä", "AAA"), ("B",)]).fingerprint
    assert Taxonomy(edges).fingerprint == "116ae49b7fc07364"
