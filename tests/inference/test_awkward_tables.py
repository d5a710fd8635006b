"""CSV and Parquet as people have them, to be predicted."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ptmt_lightning.inference.text_files import read_rows
from ptmt_lightning.utils import lines


def rows_of(path: Path, content: str | bytes, text_column: str = "text") -> list[tuple[str | None, str, str | None]]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [(row.id, row.text, row.error) for row in read_rows(str(path), text_column=text_column)]


@pytest.mark.parametrize(
    "content",
    [
        "id,text\n1,a; b\n",
        "id;text\n1;a; b\n".replace("a; b", '"a; b"'),
        "id\ttext\n1\ta; b\n",
        "id|text\n1|a; b\n",
        '"id";"text"\r\n"1";"a; b"\r\n',
        'sep=;\nid;text\n1;"a; b"\n',
        "\n\nid,text\n1,a; b\n",
        "\ufeffid;text\n1;'a; b'\n".replace("'", '"'),
    ],
)
def test_the_header_tells_what_separates_columns(tmp_path: Path, content: str) -> None:
    assert rows_of(tmp_path / "in.csv", content) == [("1", "a; b", None)]


def test_a_tsv_is_a_table(tmp_path: Path) -> None:
    assert rows_of(tmp_path / "in.tsv", "text\tid\nm, n\t3\n") == [("3", "m, n", None)]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "it is empty; expected a header with the column 'text'"),
        ("\n \n", "it is empty; expected a header with the column 'text'"),
        ("id;body\n1;a\n", "no column 'text'; it has 'id', 'body' separated by ';'; set --text-column"),
        ("id\tbody\n1\ta\n", "no column 'text'; it has 'id', 'body' separated by '\\t'; set --text-column"),
        ("id,body\n", "no column 'text'; it has 'id', 'body' separated by ','; set --text-column"),
        ("body\n", "no column 'text'; it has 'body'; set --text-column"),
        ("text,text\na,b\n", "more than one column 'text'; it has 'text', 'text' separated by ','; set --text-column"),
        ("text;text\na;b\n", "more than one column 'text'; it has 'text', 'text' separated by ';'; set --text-column"),
        ("x" * 5000, f"no column 'text'; it has '{'x' * 196}...; set --text-column"),
    ],
)
def test_a_header_that_does_not_fit_is_one_line(tmp_path: Path, content: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'{tmp_path}/in.csv: {problem}')}$"):
        rows_of(tmp_path / "in.csv", content)


def test_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    assert rows_of(tmp_path / "in.csv", "id;text\n") == []


def test_quoted_line_breaks_belong_to_the_text_and_to_the_header(tmp_path: Path) -> None:
    assert rows_of(tmp_path / "in.csv", 'text,"a\nb"\n"m\nn",2\n') == [(None, "m\nn", None)]


def test_bad_rows_keep_the_separator(tmp_path: Path) -> None:
    found = rows_of(tmp_path / "in.csv", 'id;text\n1;"a"b\n2;c\n')
    assert found == [(None, '1;"a"b', "invalid CSV: ';' expected after '\"'"), ("2", "c", None)]


def test_latin_1_is_told_row_by_row(tmp_path: Path) -> None:
    found = rows_of(tmp_path / "in.csv", b"text\nm\nStra\xdfe\n")
    assert [error for _, _, error in found] == [None, "the text is not valid UTF-8; save the file as UTF-8"]


def test_long_lines_and_open_quotes_take_one_row_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", 100)
    monkeypatch.setattr("ptmt_lightning.data.records.MAX_LINE", 100)
    found = rows_of(tmp_path / "in.csv", "text\n" + "x" * 500 + "\nm\n" + '"' + "y\n" * 80)
    assert [error for _, _, error in found[:3]] == [
        "invalid CSV: the line has more than 100 characters",
        None,
        "invalid CSV: a quote is not closed within 50 lines",
    ]
    assert [text for _, text, _ in found[3:]] == ["y"] * 79


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet" * 10, b"PAR1" + b"\xff" * 50 + b"PAR1"])
def test_what_is_no_parquet_names_its_file(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(
        ValueError, match=r"^.*/in\.parquet: not a whole Parquet file \([^\n]*\); write or copy it again$"
    ):
        rows_of(tmp_path / "in.parquet", content)


def test_a_parquet_file_that_is_cut_off_names_itself(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["m"] * 5000}), tmp_path / "whole.parquet")
    content = (tmp_path / "whole.parquet").read_bytes()
    with pytest.raises(ValueError, match=r"in\.parquet: not a whole Parquet file"):
        rows_of(tmp_path / "in.parquet", content[: len(content) // 2])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"text": "a", "text": "b"}', "invalid JSON: key 'text' is there twice"),
        ('{"text": "a", "x": {"k": 1, "k": 2}}', "invalid JSON: key 'k' is there twice"),
        ('{"text": NaN}', "the text is float nan, expected a string"),
        ('{"text": Infinity}', "the text is float inf, expected a string"),
        ('{"text": ' + "1" * 5000 + "}", "invalid JSON: Exceeds the limit (4300 digits) for integer string conversion"),
        ('{"text": ' + "[" * 9999, "invalid JSON: maximum recursion depth exceeded"),
        ('{"text": "\\ud800"}', "the text is not valid UTF-8"),
        ('{"text": ["a"]}', "the text is list ['a'], expected a string"),
    ],
)
def test_awkward_json_is_a_bad_row(tmp_path: Path, line: str, problem: str) -> None:
    [first, last] = rows_of(tmp_path / "in.jsonl", f'{line}\n{{"text": "m"}}\n')
    assert (first[2] or "").startswith(problem)
    assert last == (None, "m", None)


def test_a_large_integer_is_an_id_and_json_may_say_nan_elsewhere(tmp_path: Path) -> None:
    assert rows_of(tmp_path / "in.jsonl", '{"text": "m", "id": 123456789012345678901234567890, "x": NaN}\n') == [
        ("123456789012345678901234567890", "m", None)
    ]


def test_two_columns_of_ids_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,id,text\n1,2,hello\n")
    with pytest.raises(ValueError, match=r"in\.csv: more than one column 'id'; rename all but one$"):
        list(read_rows(str(tmp_path / "in.csv")))


def test_lines_that_end_with_carriage_returns_alone_are_not_one_text(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"one\rtwo\rthree\r")
    [row] = read_rows(str(tmp_path / "in.txt"))
    assert row.error == "a carriage return within the line; end lines with line feeds"
