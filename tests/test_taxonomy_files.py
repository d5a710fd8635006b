"""Taxonomies in TSV and JSON files, and those that are refused."""

from __future__ import annotations

import re
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given
from random_taxonomies import DAG_EDGES, Edges, quick, trees_or_dags

from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy import files as module
from ptmt_lightning.taxonomy.edges import ROOT


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
        b"ROOT\tA\rA\tAA\r",
        "ROOT\tA\nA\tAA\n".encode("utf-16"),
        "\ufeffROOT\tA\nA\tAA\n".encode("utf-16-be"),
        "ROOT\tA\nA\tAA\n".encode("utf-32"),
    ],
    ids=["plain", "no last newline", "byte order mark", "CRLF", "blank lines at the end", "spaces round names", "CR",
         "UTF-16", "UTF-16, big-endian", "UTF-32"],
)  # fmt: skip
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
        (b"ROOT\tA\nA\t\xff\n", ":2: invalid UTF-8 at byte 3 of the line; save the file as UTF-8"),
        ("ROOT\tA\n".encode("utf-16-le"), ":1: NUL characters, as UTF-16 does that is read as UTF-8; save the file as"),
        ("ROOT\tA\n".encode("utf-32-be"), ":1: NUL characters, as UTF-16 does that is read as UTF-8; save the file as"),
        (b"ROOT\tA\nA\t" + b"B" * 2**14, ":2: more than 16,384 characters; expected 'parent<TAB>child'"),
        (b"ROOT\tOther\nOther\tOther\n", ":2: cycle Other -> Other: names identify nodes, so that a child needs "
                                          "another name than its parent, such as 'Other (other)'; rename it"),
        ("ROOT\tCafe\u0301\nROOT\tCaf\u00e9\n".encode(), ":2: duplicate edge 'ROOT' -> 'Caf\u00e9', first on "
                                                     "line 1; delete one of the two"),
        (b"A\tB\nB\tA\n", ": no edge starts at ROOT; add 'ROOT<TAB>NAME' for each top node"),
    ],
    ids=["no way to the root", "duplicate", "empty", "blank lines only",
         "no tab", "three fields", "empty name", "blank line inside", "not UTF-8", "UTF-16 without a mark",
         "UTF-32 without a mark", "long line", "child named like its parent", "two Unicode forms", "no root"],
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
        ([(ROOT, "A"), ("A", ROOT)], [ROOT, "A"]),
    ],
    ids=["three nodes", "through the root"],
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


def test_more_edges_than_any_taxonomy_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_EDGES", 3)
    path = tmp_path / "taxonomy.tsv"
    path.write_text("".join(f"ROOT\t{name}\n" for name in "ABCD"))
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}:4: more than 3 edges')}"):
        Taxonomy.from_tsv(path)


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_labels_are_found_in_whatever_unicode_form_they_are_written(forms: tuple[str, str]) -> None:
    """macOS and Windows, or two editors, may write one word in two ways, which look the same."""
    names = ["Caf\u00e9", "\u1112\u1161\u11ab", "plain"]
    taxonomy = Taxonomy([(ROOT, normalize(forms[0], name)) for name in names])
    assert taxonomy.encode([[normalize(forms[1], name)] for name in names]) == [0, 1, 2]
    assert taxonomy.names == tuple(normalize(forms[0], name) for name in names)


def test_forms_that_an_old_model_tells_apart_stay_apart() -> None:
    taxonomy = Taxonomy([(ROOT, "Caf\u00e9"), (ROOT, "Cafe\u0301")])
    assert [taxonomy.encode([[name]]) for name in taxonomy.names] == [[0], [1]]
