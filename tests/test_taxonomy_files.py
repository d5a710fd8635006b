"""Taxonomies in TSV and JSON files, and those that are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from random_taxonomies import DAG_EDGES, Edges, quick, trees_or_dags

from ptmt_lightning.edges import ROOT
from ptmt_lightning.taxonomy import Taxonomy


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
