"""Tables of all formats give one and the same data folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from converted import convert_table, documents, rows, written
from hypothesis import given, settings
from hypothesis import strategies as st

from ptmt_lightning.taxonomy import Taxonomy

# What XML, and so Excel, can hold, without what its cells can't begin with or would lose.
TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Cn")), min_size=1, max_size=20).filter(
    lambda text: text.strip() and text[0] not in "=#"
)
LABEL = st.sampled_from(["Hardware", "Software", "Größe", "a, b", 'say "x"', "NA", "None", "7", "x;y", "[Gtk] bug"])
WRITERS: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    "t.csv": lambda f, p: f.to_csv(p, index=False),
    "t.tsv": lambda f, p: f.to_csv(p, index=False, sep="\t"),
    "t.csv.gz": lambda f, p: f.to_csv(p, index=False, sep=";"),
    "bom.csv": lambda f, p: f.to_csv(p, index=False, encoding="utf-8-sig"),
    "utf16.csv": lambda f, p: f.to_csv(p, index=False, encoding="utf-16"),
    "t.xlsx": lambda f, p: f.to_excel(p, index=False),
    "t.parquet": lambda f, p: f.to_parquet(p),
    "t.json": lambda f, p: f.to_json(p, orient="records"),
    "t.jsonl": lambda f, p: f.to_json(p, orient="records", lines=True),
    "t.json.gz": lambda f, p: f.to_json(p, orient="records", indent=1),
}


def frame(*cells: tuple[object, ...]) -> pd.DataFrame:
    return pd.DataFrame(list(cells), columns=["text", "level1", "level2"])


@settings(max_examples=15)
@given(st.lists(st.tuples(TEXT, LABEL, st.none() | LABEL), min_size=1, max_size=6))
def test_a_frame_and_its_files_of_all_formats_are_one_folder(cells: list[tuple[str, str, str | None]]) -> None:
    table = frame(*cells)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        expected = rows(folder, table)
        assert expected == [(text, [[one] if two is None else [one, two]]) for text, one, two in cells]
        for file, write in WRITERS.items():
            write(table, folder / file)
            assert rows(folder, folder / file) == expected, file
        trees = [Taxonomy.from_tsv(path) for path in folder.glob("converted*/taxonomy.tsv")]
        assert len(trees) == len(WRITERS) + 1
        assert len({tree.fingerprint for tree in trees}) == 1


def test_whole_numbers_are_one_label_whatever_they_were_made_into(tmp_path: Path) -> None:
    """A column of whole numbers with an empty cell becomes one of floats in a data frame."""
    table = frame(("a", 1, 7), ("b", 2, None), ("c", 1, 8))
    expected = [("a", [["1", "7"]]), ("b", [["2"]]), ("c", [["1", "8"]])]
    assert rows(tmp_path, table) == expected
    for file, write in WRITERS.items():
        write(table, tmp_path / file)
        assert rows(tmp_path, tmp_path / file) == expected, file
    said = convert_table(tmp_path / "t.csv", tmp_path / "said", val_share=0, test_share=0)
    assert said[-2:] == [
        f"{tmp_path}/t.csv: 1 x labels such as '7.0' are taken for whole numbers, '7'",
        f"{tmp_path}/t.csv: 1 x labels such as '8.0' are taken for whole numbers, '8'",
    ]


@pytest.mark.parametrize("name", ["t.parquet", "t.json", "t.jsonl", "t.csv"])
def test_lists_of_paths_are_read_from_real_lists_and_from_their_text(tmp_path: Path, name: str) -> None:
    table = pd.DataFrame({"text": ["a", "b", "c"], "labels": [[["A", "B"], ["C"]], [["A"]], []]})
    WRITERS[name](table, tmp_path / name)
    assert rows(tmp_path, tmp_path / name) == [("a", [["A", "B"], ["C"]]), ("b", [["A"]]), ("c", [])]


@pytest.mark.parametrize(
    ("cell", "options", "paths"),
    [
        ("A > B", {}, [["A", "B"]]),
        ("A>B | C", {}, [["A", "B"], ["C"]]),
        ("A > B | A > B", {}, [["A", "B"]]),
        ("A/B;C", {"level_separator": "/", "path_separator": ";"}, [["A", "B"], ["C"]]),
        ("A | B", {"path_separator": None}, [["A | B"]]),
        ("A  x\t> B", {}, [["A x", "B"]]),
        ('[["A", "B > C"]]', {}, [["A", "B > C"]]),
        ('["A > B", "C"]', {}, [["A", "B"], ["C"]]),
        ("[['A', 'B'], ['C']]", {}, [["A", "B"], ["C"]]),
        ("[Gtk] bug", {}, [["[Gtk] bug"]]),
        ("e\u0301", {}, [["\xe9"]]),
        ("12", {}, [["12"]]),
        (" ", {}, []),
        ("[]", {}, []),
    ],
)
def test_a_cell_of_paths(tmp_path: Path, cell: str, options: dict[str, str | None], paths: list[list[str]]) -> None:
    table = pd.DataFrame({"text": ["a", "b"], "path": [cell, "Z"]})
    assert rows(tmp_path, table, **options) == [("a", paths), ("b", [["Z"]])]


def test_a_list_of_texts_is_said_to_be_several_labels(tmp_path: Path) -> None:
    table = pd.DataFrame({"text": ["a"], "labels": [["A", "B"]]})
    said = convert_table(table, tmp_path / "to", val_share=0, test_share=0)
    assert documents(tmp_path / "to")["train"] == [("a", [["A"], ["B"]])]
    assert said[-1] == (
        'data frame: 1 x a list of texts in \'labels\' is taken for several labels; of one path write [["A", "B"]]'
    )


def test_columns_are_chosen_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", "id;Title;body;dept;cat\n1;Hello;m, n;A;B\n2;;x;A;\n")
    assert rows(tmp_path, path, text=["Title", "body"], levels=["dept", "cat"]) == [
        ("Hello\n\nm, n", [["A", "B"]]),
        ("x", [["A"]]),
    ]


def test_what_was_assumed_is_said(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", "Text;Level_2;Level_1\na;B;A\n")
    said = convert_table(path, tmp_path / "to", val_share=0, test_share=0)
    assert said == [
        f"{path}: text from 'Text', labels from 'Level_1', 'Level_2' (assumed; set dataset.text, dataset.levels or "
        "dataset.paths for others); columns separated by ';'",
        f"{path}: 1 document(s), 1 / 1 labels a level; train 1, val 0, test 0",
    ]


def test_cp1252_is_read_where_it_is_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", "text,label\nStraße,Größe\n".encode("cp1252"))
    assert rows(tmp_path, path, encoding="cp1252") == [("Straße", [["Größe"]])]


def test_equal_names_under_different_parents_are_two_labels(tmp_path: Path) -> None:
    convert_table(
        frame(("a", "Laptop", "Battery"), ("b", "Phone", "Battery")), tmp_path / "to", val_share=0, test_share=0
    )
    assert Taxonomy.from_tsv(tmp_path / "to/taxonomy.tsv").level_sizes == (2, 2)
    assert (tmp_path / "to/taxonomy.tsv").read_text() == (
        "level1\tlevel2\nLaptop\nPhone\nLaptop\tBattery\nPhone\tBattery\n"
    )


@pytest.mark.parametrize("form", ["ROOT\tA\nA\tB\nROOT\tZ\n", "level1\tlevel2\nA\tB\nZ\n"])
def test_a_taxonomy_of_ones_own_is_kept(tmp_path: Path, form: str) -> None:
    taxonomy = written(tmp_path, "mine.tsv", form)
    table = frame(("a", "A", "B"))
    convert_table(table, tmp_path / "to", val_share=0, test_share=0, taxonomy=str(taxonomy))
    assert (tmp_path / "to/taxonomy.tsv").read_text() == form


def test_a_folder_has_a_file_a_split(tmp_path: Path) -> None:
    for name, text in {"train.csv": "a", "dev.tsv": "b", "test.jsonl": "c"}.items():
        content = json.dumps({"text": text, "label": "X"}) if name.endswith("jsonl") else f"label\ttext\nX\t{text}\n"
        written(tmp_path, name, content)
    written(tmp_path, "README.md", "about")
    convert_table(tmp_path, tmp_path / "to")
    found = {split: [text for text, _ in several] for split, several in documents(tmp_path / "to").items()}
    assert found == {"train": ["a"], "val": ["b"], "test": ["c"]}


def test_an_excel_file_may_begin_further_down_and_have_several_sheets(tmp_path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    book.active["B3"], book.active["C3"], book.active["B5"], book.active["C5"] = "text", "label", 12, "A"
    book.create_sheet("more").append(["text", "label"])
    book["more"].append(["m", "B"])
    book.save(tmp_path / "t.xlsx")
    assert rows(tmp_path, tmp_path / "t.xlsx") == [("12", [["A"]])]
    assert rows(tmp_path, tmp_path / "t.xlsx", sheet="more") == [("m", [["B"]])]


def test_documents_are_not_held_in_memory(tmp_path: Path) -> None:
    """Of ten megabytes."""
    import tracemalloc

    path = tmp_path / "t.csv"
    with path.open("w") as file:
        file.write("text,label\n")
        file.writelines(f"{'x' * 2000} {i},{i % 7}\n" for i in range(5000))
    tracemalloc.start()
    convert_table(path, tmp_path / "to")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size > 10_000_000
    assert peak < 5_000_000
