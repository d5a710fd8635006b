"""Rows of files of texts, and what is said of bad ones."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ptmt_lightning.inference.text_files import Row, read_rows


def test_bad_rows_of_a_csv(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text(
        'id,text\r\n1,"two\nlines, and a comma"\n2\n\n3,"a"b\n4,last\n5,"open\n6,a\n7,"b"\n8,c\n9,"open\n10,d'
    )
    rows = list(read_rows(str(source)))
    assert [row.number for row in rows] == list(range(1, 11))
    assert [row.number for row in rows if row.error] == [2, 3, 5, 9]
    assert rows[0].text == "two\nlines, and a comma"
    assert rows[1].error == "expected 2 fields as in the header, got 1"
    assert rows[2] == Row(3, None, '3,"a"b', "invalid CSV: ',' expected after '\"'")
    assert [row.text for row in rows[3:]] == ["last", '5,"open', "a", "b", "c", '9,"open', "d"]


def test_a_quote_that_is_never_closed_takes_one_row_with_it_in_constant_memory(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    with source.open("w") as file:
        file.write('text\nfirst\n"open\n')
        file.writelines(f"row {i}\n" for i in range(3000))
    rows = list(read_rows(str(source)))
    assert [row.number for row in rows if row.error] == [2]
    assert "a quote is not closed within 1000 lines" in str(rows[1].error)
    assert [row.text for row in rows[2:]] == [f"row {i}" for i in range(3000)]


def test_a_parquet_string_that_is_not_utf_8_is_kept_apart(tmp_path: Path) -> None:
    texts = pa.array([b"m", b"\xff", b"n"]).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")
    rows = list(read_rows(str(tmp_path / "in.parquet")))
    assert [row.error for row in rows] == [None, "the text is not valid UTF-8; save the file as UTF-8", None]


def test_a_missing_value_of_parquet_is_kept_apart(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["m", None]}), tmp_path / "in.parquet")
    rows = list(read_rows(str(tmp_path / "in.parquet"), text_column="body"))
    assert [row.error for row in rows] == [None, "the text is NoneType None, expected a string"]
