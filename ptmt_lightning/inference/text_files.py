"""Readers of texts to be predicted, row by row, from files of several formats; a row that can't be read says why."""

from __future__ import annotations

import csv
import itertools
import json
import re
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ptmt_lightning.data.document import with_unique_keys
from ptmt_lightning.utils.checks import shortened
from ptmt_lightning.utils.files import check_file
from ptmt_lightning.utils.lines import MAX_LINE, NUL_HINT, Lines, open_lines
from ptmt_lightning.utils.tokens import is_unicode

INPUT_FORMATS = ("txt", "csv", "jsonl", "parquet")
_BATCH = 1024  # number of rows of a Parquet file that are read at a time
_MAX_ARRAY = 2**28  # characters of a JSON array, which is read as a whole
_SHOWN = 1000  # characters of a row that is too long
_DELIMITERS = ",;\t|"
_MAX_RECORD = 1000  # longest CSV record, in lines; a longer one has a quote that was never closed


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
        yield from _parquet_rows(source, text_column)
        return
    with open_lines(source) as lines:
        if kind == "csv":
            yield from _csv_rows(lines, source, text_column)
        elif kind == "jsonl" and lines.peek_is_array():
            yield from _array_rows(lines, source, text_column)
        else:
            for number, line in enumerate(lines, start=1):
                content = line.removesuffix("\n").removesuffix("\r")
                if lines.is_cut(line):
                    yield Row(number, None, content[:_SHOWN], _too_long(line))
                elif kind == "txt" and "\r" in content:
                    yield Row(number, None, content, "a carriage return within the line; end lines with line feeds")
                elif kind == "txt":
                    yield Row(number, None, *_checked(content))
                elif content.strip():
                    yield _json_row(number, content, text_column)


def _parquet_rows(source: str, text_column: str) -> Iterator[Row]:
    check_file(Path(source))
    try:
        with Path(source).open("rb") as file:
            yield from _rows_of(pq.ParquetFile(file), source, text_column)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{source}: not a whole Parquet file ({reason}); write or copy it again") from None


def _rows_of(file: pq.ParquetFile, source: str, text_column: str) -> Iterator[Row]:
    names = file.schema_arrow.names
    _check_column(source, names, text_column)
    columns = [name for name in dict.fromkeys(("id", text_column)) if name in names]
    number = 0
    for batch in file.iter_batches(_BATCH, columns=columns):
        values = {name: _values(batch.column(name)) for name in columns}
        for texts in zip(*values.values(), strict=True):
            number += 1
            record = dict(zip(columns, texts, strict=True))
            yield Row(number, _id(record), *_checked(record[text_column]))


def _values(column: Any) -> list[Any]:
    """Return a column as Python values; bytes that are not UTF-8 become surrogates, as in the other formats."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        raw = column.cast(pa.binary()).to_pylist()
        values = [value if value is None else value.decode(errors="surrogateescape") for value in raw]
    return values


class _Record:
    """The lines of a CSV file, of which it remembers those of the current record, and can put them back."""

    def __init__(self, file: Lines) -> None:
        self._file, self._lines, self._waiting = file, iter(file), deque[str]()
        self.lines: list[str] = []
        self._size = 0

    def __iter__(self) -> _Record:
        return self

    def __next__(self) -> str:
        if len(self.lines) == _MAX_RECORD or self._size > MAX_LINE:
            raise csv.Error(f"a quote is not closed within {len(self.lines)} lines")
        line = self._waiting.popleft() if self._waiting else next(self._lines)
        self.lines.append(line)
        self._size += len(line)
        if self._file.is_cut(line):
            raise csv.Error(_too_long(line))
        return line

    def begin(self) -> None:
        """Forget the current record."""
        self.lines, self._size = [], 0

    def put_back(self) -> None:
        """Put back all lines of the current record but its first, to be read again."""
        self._waiting.extendleft(reversed(self.lines[1:]))


def _header(lines: _Record, source: str, text_column: str) -> tuple[list[str], str]:
    """Return the names of a table's columns, and what separates them: the first of the usual ones that gives the text.

    A line ``sep=;`` before the header, which a spreadsheet writes, says it, too.
    """
    first = next((line for line in lines if line.strip()), "")
    said = re.fullmatch(r"sep=(.)\r?\n?", first)
    if said:
        first = next(lines, "")
    header: dict[str, list[str]] = {}
    problem = None
    for delimiter in said[1] if said else _DELIMITERS:
        lines.lines = [first]
        try:
            header[delimiter] = next(csv.reader(itertools.chain([first], lines), delimiter=delimiter, strict=True), [])
        except csv.Error as error:
            problem = problem or error
        if text_column in header.get(delimiter, ()):
            break
        lines.put_back()
    if not header:
        raise ValueError(f"{source}: the header is invalid CSV: {problem}")
    found = max(header, key=lambda delimiter: (text_column in header[delimiter], len(header[delimiter])))
    _check_column(source, header[found], text_column, f" separated by {found!r}")
    return header[found], found


def _csv_rows(file: Lines, source: str, text_column: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # records are bounded
    lines = _Record(file)
    names, delimiter = _header(lines, source, text_column)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    for number in itertools.count(1):
        lines.begin()
        try:
            fields = next(reader)
            while not fields:  # a blank line
                lines.begin()
                fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # A stray quote must not cost the lines after it.
            yield Row(number, None, lines.lines[0][:_SHOWN].rstrip("\r\n"), f"invalid CSV: {error}")
            lines.put_back()
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            continue
        if len(fields) != len(names):
            wrong = f"expected {len(names)} fields as in the header, got {len(fields)}"
            yield Row(number, None, "".join(lines.lines).rstrip("\r\n"), wrong)
        else:
            record = dict(zip(names, fields, strict=True))
            yield Row(number, _id(record), *_checked(record[text_column]))


def _array_rows(file: Lines, source: str, text_column: str) -> Iterator[Row]:
    """Yield the elements of a file that holds one JSON array, however it is laid out.

    Where only its first line is an array, that is a row that can't be used, and the others are rows as ever.
    """
    content = file.read(_MAX_ARRAY + 1)
    if len(content) > _MAX_ARRAY:
        raise ValueError(f"{source}: a JSON array of more than {_MAX_ARRAY:,} characters; write an object a line")
    try:
        elements = json.loads(content, object_pairs_hook=with_unique_keys)
    except (ValueError, RecursionError) as error:
        lines = content.split("\n")
        if not _is_json(next(filter(str.strip, lines))):
            raise ValueError(
                f"{source}: begins like a JSON array, and is none ({error}); write an object a line"
            ) from error
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _json_row(number, line.removesuffix("\r"), text_column)
        return
    for number, record in enumerate(elements, start=1):
        yield _record_row(number, record, json.dumps(record), text_column)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _json_row(number: int, line: str, text_column: str) -> Row:
    try:
        record = json.loads(line, object_pairs_hook=with_unique_keys)
    except (ValueError, RecursionError) as error:
        return Row(number, None, line, f"invalid JSON: {error}")
    return _record_row(number, record, line, text_column)


def _record_row(number: int, record: Any, line: str, text_column: str) -> Row:
    if not isinstance(record, dict) or text_column not in record:
        return Row(number, None, line, f"expected an object with the key {text_column!r}")
    return Row(number, _id(record), *_checked(record[text_column]))


def _checked(text: Any) -> tuple[str, str | None]:
    """Return a text, and what is wrong with it, or None."""
    if not isinstance(text, str):
        return repr(text), f"the text is {type(text).__name__} {shortened(repr(text))}, expected a string"
    if not text.strip():
        return text, "the text is empty"
    if "\0" in text:
        return text, f"the text holds {NUL_HINT}"
    return text, None if is_unicode(text) else "the text is not valid UTF-8; save the file as UTF-8"


def _too_long(line: str) -> str:
    return f"the line has more than {len(line) - 1:,} characters"


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
