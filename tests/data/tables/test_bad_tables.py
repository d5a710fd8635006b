"""Whatever is wrong with a table is told in one line, and nothing is left behind."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any

import openpyxl
import pandas as pd
import pytest
from converted import WHOLE, convert_table, documents, written

from ptmt_lightning.data import records
from ptmt_lightning.data.tables import convert
from ptmt_lightning.data.tables.options import TableOptions
from ptmt_lightning.utils import lines

SKIP = "; dataset.skip_bad_rows leaves such rows out"


def refusal(tmp_path: Path, table: Path | pd.DataFrame, **options: Any) -> str:
    """The message, in which FILE stands for the table's path; nothing is left of the folder."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        convert_table(table, tmp_path / "to", **options)
    assert sorted(tmp_path.rglob("*")) == before
    return str(error.value).replace(str(table), "FILE") if isinstance(table, Path) else str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "FILE: it is empty; expected a header that names the columns, and a document a row"),
        ("text,label\n", "FILE: no document; expected a row a document below the header"),
        ("body,label\na,A\n", "FILE: no column 'text'; it has 'body', 'label' separated by ','; set dataset.text to "
         "the "
         "one with the text"),
        ("text;topic\na;A\n", "FILE: no column of labels; it has 'text', 'topic' separated by ';'; set dataset.levels "
         "to the columns from the top level down, or dataset.paths to one with whole paths"),
        ("text,text,label\na,b,A\n", "FILE: more than one column 'text'; it has 'text', 'text', 'label' separated by "
         "','; rename all but one"),
        ("text,level1,level1\na,A,B\n", "FILE: columns 'level1', 'level1': expected each level once, without gaps; "
         "rename or add one"),
        ("text,level1,level3\na,A,B\n", "FILE: columns 'level1', 'level3': expected each level once, without gaps; "
         "rename or add one"),
        ("text,level1,level2,level3\na,A,,C\n", "FILE:2: column 'level2': empty, but 'level3' below it holds 'C'; "
         "expected a label on each level down to the last; fill it in" + SKIP),
        ("text,path\na,A > > C\n", "FILE:2: column 'path': 'A > > C': an empty label beside a separator; expected "
         "labels "
         "with '>' between levels and '|' between paths; fill it in, or set dataset.level_separator or "
         "dataset.path_separator" + SKIP),
        ("text,label\na,nan\n", "FILE:2: column 'label': 'nan': what programs write for an empty cell; expected a "
         "label; "
         "empty the cell or rename the label" + SKIP),
        ("text,label\na,ROOT\n", "FILE:2: column 'label': 'ROOT': ROOT stands for what is above all paths; begin the "
         "path below it, or rename the label" + SKIP),
        ("text,label\n ,A\n", "FILE:2: column 'text': the text is empty; fill it in or delete the row" + SKIP),
        ("text,label\na,\nb, \n", "FILE: none of its 2 document(s) has a label (text from 'text', labels from paths in "
         "'label' (assumed; set dataset.text, dataset.levels or dataset.paths for others); columns separated by ','); "
         "set dataset.levels or dataset.paths to other columns"),
        ("text,label\na,A\nb,B,c\n", "FILE:3: expected 2 fields as in the header, got 3; correct or delete it" + SKIP),
        ('text,label\n"a\nb",A\n"c,C\nd,D\n', "FILE:4: invalid CSV: unexpected end of data; correct or delete "
         "it" + SKIP),
        ("text,label\na," + "x" * 600 + "\n", "FILE:2: column 'label': '" + "x" * 76 + "...: 600 characters; "
         "expected a "
         "label; is this the column of the text?" + SKIP),
        ("text,label\na,[['A'\nb,[x]\n", "FILE:3: column 'label': '[x]': expected a list as JSON, such as [[\"level "
         "1\", "
         '"level 2"]]; correct it' + SKIP),
        ("text,label\na,A\n", "FILE: 1 different text(s) to draw from are too few for a val split; add documents, give "
         "the splits in a column or as files, or set dataset.val_share and dataset.test_share"),
    ],
)  # fmt: skip
def test_a_bad_csv_file(tmp_path: Path, content: str, message: str) -> None:
    assert refusal(tmp_path, written(tmp_path, "t.csv", content)) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": "titel"}, "no column 'titel' (did you mean 'Title'?); it has 'Title', 'dept', 'x' separated by ','; "
         "set dataset.text"),
        ({"text": "Title", "levels": ["dept", "cat"]}, "no column 'cat'; it has 'Title', 'dept', 'x' separated by ','; "
         "set dataset.levels"),
        ({"text": "Title", "levels": "dept", "split_column": "splt"}, "no column 'splt'; it has 'Title', 'dept', 'x' "
         "separated by ','; set dataset.split_column"),
        ({"text": "Title", "paths": "Title"}, "column 'Title': text and label at once; set dataset.text"),
    ],
)  # fmt: skip
def test_a_column_that_is_not_there(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    path = written(tmp_path, "t.csv", "Title,dept,x\na,A,train\n")
    assert refusal(tmp_path, path, **options) == f"FILE: {message}"


def test_a_split_of_another_name(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", "text,label,part\na,A,Train\nb,A,holdout\nc,A,\n")
    assert refusal(tmp_path, path, split_column="part") == (
        "FILE:3: column 'part': 'holdout': expected train, val (valid, validation, dev) or test; 1 more row(s) are bad"
        + SKIP
    )
    path = written(tmp_path, "t.csv", "text,label,part\na,A,test\n")
    assert refusal(tmp_path, path, split_column="part") == (
        "FILE: no document to train on; name the split of some of them train"
    )


def test_bad_rows_can_be_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", "text,level1,level2\na,A,B\n,A,B\nb,,B\nc,C,\n")
    said = convert_table(path, tmp_path / "to", skip_bad_rows=True, **WHOLE)
    assert [text for text, _ in documents(tmp_path / "to")["train"]] == ["a", "c"]
    assert said[-1] == (
        f"{path}: 2 row(s) unusable, the first: {path}:3: column 'text': the text is empty; fill it in or delete "
        f"the row"
    )
    path = written(tmp_path, "t.csv", "text,label\n,A\n")
    assert refusal(tmp_path, path, skip_bad_rows=True).startswith("FILE: no document; expected a row a document below")


def test_an_encoding_that_is_not_what_it_says(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", "text,label\nStraße,A\n".encode("cp1252"))
    assert refusal(tmp_path, path) == (
        "FILE:2: column 'text': bytes that are not UTF-8; set the encoding, or save the file as UTF-8. In cp1252 "
        "(Windows, Western Europe) it reads 'Straße'" + SKIP
    )
    path = written(tmp_path, "t.csv", "text,label\na,Größe\n".encode("cp1252"))
    assert "it reads 'Größe'" in refusal(tmp_path, path)
    path = written(tmp_path, "t.csv", "text,label\na,A\n")
    assert re.fullmatch(
        r"FILE: 'utf-16[^;]*; save the file as UTF-8|FILE: UTF-16[^;]*; save the file as UTF-8",
        refusal(tmp_path, path, encoding="utf-16"),
    )
    path = written(tmp_path, "t.csv", "text,label\nStraße,A\n".encode("utf-16-le"))
    assert refusal(tmp_path, path) == (
        "FILE: its header holds NUL characters, as UTF-16 does that is read as UTF-8; save the file as UTF-8, or set "
        "dataset.encoding"
    )


def test_a_huge_cell_and_a_quote_that_is_never_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (lines, records, convert):
        monkeypatch.setattr(module, "MAX_LINE", 100)
    path = written(tmp_path, "t.csv", f"text,label\n{'x' * 200},A\nb,B\n")
    assert refusal(tmp_path, path) == (
        "FILE:2: invalid CSV: the line has more than 100 characters; correct or delete it" + SKIP
    )
    path = written(tmp_path, "t.csv", 'text,label\n"x,A\n' + "b,B\n" * 80)
    assert refusal(tmp_path, path).startswith("FILE:2: invalid CSV: a quote is not closed within 25 lines; correct or")
    frame = pd.DataFrame({"text": ["x" * 200], "label": ["A"]})
    assert refusal(tmp_path, frame) == (
        "data frame, iloc 0: column 'text': a text of 200 characters; shorten or delete it" + SKIP
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.parquet", "no parquet" * 10, "FILE: not a whole Parquet file ("),
        ("t.xlsx", "PK\x03\x04 no zip" * 10, "FILE: not an Excel workbook ("),
        ("t.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "FILE: protected by a password, or an Excel "
         "file of "
         "the old form; save it as .xlsx without one"),
        ("t.csv", b"PK\x03\x04" + bytes(60), "FILE: not a text file, but a zip archive or an Excel file; extract it"),
        ("t.csv.gz", "", "FILE: it is empty; expected a header"),
        ("t.json", "", "FILE: it is empty; expected an object a line, or an array of objects, each a document"),
        ("t.json", "[1, 2]", "FILE, element 1: 1: a int; expected an object a line, or one array of objects"),
        ("t.json", '{"text": "a",\n"label": "A"}', "FILE:1: invalid JSON: "),
        ("t.jsonl", '{"text": "a", "label": "A"}\n7\n', "FILE:2: 7: expected an object with a key for each column; "
         "correct or delete it" + SKIP),
        ("t.jsonl", '{"text": "a", "label": {"x": 1}}\n', "FILE:1: column 'label': {'x': 1}: dict; expected a label, a "
         "text or number" + SKIP),
        ("t.jsonl", '{"text": "a", "labels": [["A", ""]]}\n', "FILE:1: column 'labels': ['A', '']: an empty label; "
         "expected one on each level of a path; fill it in" + SKIP),
        ("t.jsonl", '{"text": "a", "labels": [["A"], "B"]}\n', "FILE:1: column 'labels': [['A'], 'B']: expected a "
         "list of "
         'paths, such as [["level 1", "level 2"], ...], or of texts; write one of the two' + SKIP),
        ("t.doc", "x", "FILE: unknown format '.doc'; expected csv, tsv, xlsx, parquet, json, jsonl, text also with "
         ".gz; "
         "rename it, or set dataset.format"),
    ],
)  # fmt: skip
def test_a_bad_file_of_another_format(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    assert refusal(tmp_path, written(tmp_path, name, content)).startswith(message)


def test_dates_and_formulas_of_a_spreadsheet(tmp_path: Path) -> None:
    """A formula without a saved result is an empty cell."""
    for cell, message in {
        date(2024, 3, 4): "FILE, row 2: column 'label': datetime.date(2024, 3, 4): a date or time; expected a label, "
        "which a spreadsheet may have changed; give the column the format text, and write it anew" + SKIP,
        "=A1&A2": "FILE: none of its 1 document(s) has a label",
    }.items():
        book = openpyxl.Workbook()
        book.active.append(["text", "label"])
        book.active.append(["a", cell])
        book.save(tmp_path / "t.xlsx")
        assert refusal(tmp_path, tmp_path / "t.xlsx").startswith(message)
    assert refusal(tmp_path, tmp_path / "t.xlsx", sheet="Tabelle1") == (
        "FILE: no sheet 'Tabelle1'; it has 'Sheet'; set dataset.sheet"
    )


def test_a_label_that_the_given_taxonomy_lacks(tmp_path: Path) -> None:
    taxonomy = written(tmp_path, "mine.tsv", "level1\tlevel2\nHardware\tDisk\n")
    path = written(tmp_path, "t.csv", "text,level1,level2\na,Hardware,Disc\n")
    assert refusal(tmp_path, path, taxonomy=str(taxonomy)) == (
        "FILE:2: label 'Disc' is not in the taxonomy (did you mean 'Disk'?); correct the labels, or add the path to "
        f"{taxonomy}{SKIP}"
    )


def test_what_is_no_source(tmp_path: Path) -> None:
    assert refusal(tmp_path, tmp_path / "t.csv") == (
        "FILE: no such file or folder; expected a table (csv, tsv, xlsx, parquet, json, jsonl), a folder with one a "
        "split, or hf://OWNER/NAME"
    )
    folder = tmp_path / "folder"
    folder.mkdir()
    written(folder, "tickets.csv", "text,label\n")
    assert refusal(tmp_path, folder).startswith(
        "FILE: no file train with one of the ends csv, tsv, xlsx, parquet, json, jsonl; it has tickets.csv; expected"
    )
    written(folder, "train.csv", "text,label\n")
    written(folder, "training.tsv", "text,label\n")
    assert refusal(tmp_path, folder) == "FILE: both train.csv and training.tsv are its train split; remove one"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_share": 1.0}, "dataset.val_share=1.0: expected a number in [0, 1); set dataset.val_share to one"),
        ({"val_share": 0.5, "test_share": 0.5}, "dataset.test_share=0.5: with a val_share of 0.5 nothing is left to "
         "train on; lower one"),
        ({"levels": ["a"], "paths": "b"}, "dataset.paths='b': labels are in the columns levels=['a'] already; leave "
         "one "
         "of the two out"),
        ({"delimiter": ";;"}, "dataset.delimiter=';;': expected one character, such as ';'"),
        ({"encoding": "utf8000"}, "dataset.encoding='utf8000': there is no such encoding; expected one such as utf-8, "
         "utf-16 or cp1252"),
        ({"format": "xls"}, "dataset.format='xls': expected one of csv, tsv, xlsx, parquet, json, jsonl, label-studio, "
         "argilla"),
        ({"text": ["a", "a"]}, "dataset.text=['a', 'a']: expected each column once; leave the second out"),
        ({"level_separator": "|"}, "dataset.level_separator='|': expected characters other than spaces and "
         "path_separator, such as '>'"),
        ({"prefix": "--", "split_seed": -1}, "--split-seed=-1: expected an integer >= 0; set --split-seed to one"),
    ],
)  # fmt: skip
def test_settings_that_can_not_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TableOptions(**options)
