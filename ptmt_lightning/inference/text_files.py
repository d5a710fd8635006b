"""Readers of texts to be predicted, row by row, from files of several formats; a row that can't be read says why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ptmt_lightning.data.records import (
    SHOWN,
    Record,
    csv_table,
    json_records,
    open_parquet,
    parquet_records,
    too_long,
)
from ptmt_lightning.utils.checks import shortened
from ptmt_lightning.utils.lines import NUL_HINT, Lines, open_lines
from ptmt_lightning.utils.tokens import is_unicode

INPUT_FORMATS = ("txt", "csv", "jsonl", "parquet")


class Row(NamedTuple):
    """A row of the input: its text, or what is wrong with it."""

    number: int  # counted from 1
    id: str | None
    text: str  # the row's content where there is an error
    error: str | None = None


def read_rows(source: str, input_format: str | None = None, text_column: str = "text") -> Iterator[Row]:
    """Yield the rows of a file; those that can't be read have an error.

    Args:
        source: path of the file, or ``-`` for standard input.
        input_format: format of the file; None to tell it by the file's name.
        text_column: column, or key, that holds the text; one named ``id`` is passed on.

    Raises:
        ValueError: the format is unknown, the text column is missing or there twice, or the file ends early or is
            damaged.
    """
    kind = format_of(source, input_format, INPUT_FORMATS, "input")
    if kind == "parquet":
        with open_parquet(source) as file:
            names = file.schema_arrow.names
            _check_column(source, names, text_column)
            columns = [name for name in dict.fromkeys(("id", text_column)) if name in names]
            yield from (_row(record, text_column) for record in parquet_records(file, source, columns))
        return
    with open_lines(source) as lines:
        if kind == "txt":
            yield from _lines(lines)
        elif kind == "jsonl":
            yield from (_row(record, text_column) for record in json_records(lines, source))
        else:
            table = csv_table(lines, source, {text_column})
            _check_column(source, table.names, text_column, f" separated by {table.delimiter!r}")
            yield from (_row(record, text_column) for record in table.records)


def _lines(lines: Lines) -> Iterator[Row]:
    for number, line in enumerate(lines, start=1):
        content = line.removesuffix("\n").removesuffix("\r")
        if lines.is_cut(line):
            yield Row(number, None, content[:SHOWN], too_long(line))
        elif "\r" in content:
            yield Row(number, None, content, "a carriage return within the line; end lines with line feeds")
        else:
            yield Row(number, None, *_checked(content))


def _row(record: Record, text_column: str) -> Row:
    if record.error:
        return Row(record.number, None, record.raw, record.error)
    if not isinstance(record.content, dict) or text_column not in record.content:
        return Row(record.number, None, record.raw, f"expected an object with the key {text_column!r}")
    return Row(record.number, _id(record.content), *_checked(record.content[text_column]))


def _checked(text: Any) -> tuple[str, str | None]:
    """Return a text, and what is wrong with it, or None."""
    if not isinstance(text, str):
        return repr(text), f"the text is {type(text).__name__} {shortened(repr(text))}, expected a string"
    if not text.strip():
        return text, "the text is empty"
    if "\0" in text:
        return text, f"the text holds {NUL_HINT}"
    return text, None if is_unicode(text) else "the text is not valid UTF-8; save the file as UTF-8"


def _id(record: Mapping[str, Any]) -> str | None:
    return None if record.get("id") is None else str(record["id"]).encode(errors="backslashreplace").decode()


def _check_column(source: str, names: Sequence[str], text_column: str, separated: str = "") -> None:
    if not any(names):
        raise ValueError(f"{source}: it is empty; expected a header with the column {text_column!r}")
    if list(names).count("id") > 1:
        raise ValueError(f"{source}: more than one column 'id'; rename all but one")
    if list(names).count(text_column) != 1:
        problem = "no column" if text_column not in names else "more than one column"
        shown = shortened(", ".join(map(repr, names)))
        raise ValueError(
            f"{source}: {problem} {text_column!r}; it has {shown}{separated if len(names) > 1 else ''}; "
            "set --text-column"
        )


def format_of(name: str, given: str | None, known: tuple[str, ...], side: str) -> str:
    """Return the format of a file, such as ``jsonl``: the one that the user gave, or else by its name.

    Args:
        name: name of the file; ``-`` for a standard stream, which is ``txt`` unless the user says otherwise.
        given: the format that the user gave, or None.
        known: the possible formats.
        side: ``input`` or ``output``, for the error message.

    Raises:
        ValueError: the format is not one of ``known``.
    """
    kind = given or Path(name.lower().removesuffix(".gz")).suffix.removeprefix(".")
    if side == "input":  # an array, or lines by another name; a table whose header tells the delimiter
        kind = {"json": "jsonl", "tsv": "csv"}.get(kind, kind)
    if name == "-" and given is None:
        kind = "txt"
    if kind not in known:
        hint = " or set --input-format" if side == "input" else ""
        raise ValueError(f"{name}: unknown {side} format {kind!r}; expected {', '.join(known)}; rename it{hint}")
    return kind
