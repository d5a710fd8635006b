"""Readers of texts to be predicted, row by row, from files of several formats; a row that can't be read says why."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import sys
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from ptmt_lightning.utils.tokens import is_unicode

INPUT_FORMATS = ("txt", "csv", "jsonl", "parquet")
_BATCH = 1024  # number of rows of a Parquet file that are read at a time
_MAX_LINE = 2**24  # characters of a line, a longer one is cut and reported; JSON may take six for one of a text
_MAX_ARRAY = 2**28  # characters of a JSON array, which is read as a whole
_PEEKED = 2**16  # characters of the first line that holds anything, of which the first is looked at
_SHOWN = 1000  # characters of a row that is too long
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32"}
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
    try:
        with _opened(source) as file:
            if kind == "csv":
                yield from _csv_rows(file, source, text_column)
                return
            if kind == "jsonl" and file.peek_is_array():
                yield from _array_rows(file, source, text_column)
                return
            for number, line in enumerate(file, start=1):
                content = line.removesuffix("\n").removesuffix("\r")
                if len(content) == _MAX_LINE:
                    yield Row(number, None, content[:_SHOWN], f"the line has more than {_MAX_LINE:,} characters")
                elif kind == "txt":
                    yield Row(number, None, *_checked(content))
                elif content.strip():
                    yield _json_row(number, content, text_column)
    except UnicodeError as error:
        raise ValueError(f"{source}: {error}; save the file as UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{source}: the file ends early or is damaged ({error}); get it anew") from error


def _parquet_rows(source: str, text_column: str) -> Iterator[Row]:
    file = pq.ParquetFile(source)
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


class _Lines:
    """An iterator over the lines of a file that remembers those of the current record, and can put them back."""

    def __init__(self, file: Iterable[str]) -> None:
        self._file, self._waiting = iter(file), deque[str]()
        self.record: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if len(self.record) == _MAX_RECORD:
            raise csv.Error(f"a quote is not closed within {_MAX_RECORD} lines")
        line = self._waiting.popleft() if self._waiting else next(self._file)
        self.record.append(line)
        return line

    def put_back(self) -> None:
        """Put back all lines of the current record but its first, to be read again."""
        self._waiting.extendleft(reversed(self.record[1:]))


def _csv_rows(file: Iterable[str], source: str, text_column: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    lines = _Lines(file)
    reader = csv.reader(lines, strict=True)
    try:
        names = next(reader, [])
    except csv.Error as error:
        raise ValueError(f"{source}: the header is invalid CSV: {error}") from error
    _check_column(source, names, text_column)
    for number in itertools.count(1):
        lines.record = []
        try:
            fields = next(reader)
            while not fields:  # a blank line
                lines.record = []
                fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # A stray quote must not cost the lines after it.
            yield Row(number, None, lines.record[0].rstrip("\r\n"), f"invalid CSV: {error}")
            lines.put_back()
            reader = csv.reader(lines, strict=True)
            continue
        if len(fields) != len(names):
            wrong = f"expected {len(names)} fields as in the header, got {len(fields)}"
            yield Row(number, None, "".join(lines.record).rstrip("\r\n"), wrong)
        else:
            record = dict(zip(names, fields, strict=True))
            yield Row(number, _id(record), *_checked(record[text_column]))


def _array_rows(file: _TextLines, source: str, text_column: str) -> Iterator[Row]:
    """Yield the elements of a file that holds one JSON array, however it is laid out.

    Where only its first line is an array, that is a row that can't be used, and the others are rows as ever.
    """
    content = file.read(_MAX_ARRAY + 1)
    if len(content) > _MAX_ARRAY:
        raise ValueError(f"{source}: a JSON array of more than {_MAX_ARRAY:,} characters; write an object a line")
    try:
        elements = json.loads(content)
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
        record = json.loads(line)
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
        return repr(text), f"the text is {type(text).__name__} {text!r}, expected a string"
    if not text.strip():
        return text, "the text is empty"
    if "\0" in text:
        return text, "the text holds NUL characters, as UTF-16 does that is read as UTF-8; save the file as UTF-8"
    return text, None if is_unicode(text) else "the text is not valid UTF-8"


def _id(record: Mapping[str, Any]) -> str | None:
    return None if record.get("id") is None else str(record["id"]).encode(errors="backslashreplace").decode()


def _check_column(source: str, names: Sequence[str], text_column: str) -> None:
    if list(names).count(text_column) != 1:
        problem = "no column" if text_column not in names else "more than one column"
        raise ValueError(
            f"{source}: {problem} {text_column!r}; it has {', '.join(map(repr, names))}; set --text-column"
        )


@contextmanager
def _opened(source: str) -> Iterator[_TextLines]:
    """Open a text file in the encoding that its byte-order mark names, UTF-8 without one."""
    with nullcontext(sys.stdin.buffer) if source == "-" else Path(source).open("rb") as binary:
        is_zipped = source.lower().endswith(".gz")
        plain: Any = io.BufferedReader(gzip.GzipFile(fileobj=binary)) if is_zipped else binary
        start = plain.peek(4)[:4]
        encoding = _MARKS.get(start) or _MARKS.get(start[:2]) or "utf-8-sig"
        # Bytes that are not UTF-8 become surrogates, which are reported row by row.
        errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
        yield _TextLines(io.TextIOWrapper(plain, encoding=encoding, errors=errors, newline="\n"))


class _TextLines:
    """The lines of a text file, of bounded length: the rest of a longer one is skipped."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._num_blank, self._start = 0, ""  # what peeking has read: blank lines, and the next one or its beginning

    def peek_is_array(self) -> bool:
        """Return whether the first character that is no white space opens a JSON array."""
        while (start := self._file.readline(_PEEKED)) and not start.strip():
            self._num_blank += start.endswith("\n")
        self._start = start
        return start.lstrip().startswith("[")

    def read(self, size: int) -> str:
        """Return what is left, up to so many characters."""
        start = "\n" * min(self._num_blank, size) + self._start
        self._num_blank, self._start = 0, ""
        return start + self._file.read(size)

    def __iter__(self) -> Iterator[str]:
        yield from itertools.repeat("\n", self._num_blank)
        line, self._num_blank, self._start = self._start, 0, ""
        while line := line if line.endswith("\n") else line + self._file.readline(_MAX_LINE - len(line)):
            if len(line) == _MAX_LINE and not line.endswith("\n"):
                while (rest := self._file.readline(_MAX_LINE)) and not rest.endswith("\n"):
                    pass
            yield line
            line = ""


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
    kind = "jsonl" if kind == "json" and side == "input" else kind  # an array, or lines by another name
    if name == "-" and given is None:
        kind = "txt"
    if kind not in known:
        hint = " or set --input-format" if side == "input" else ""
        raise ValueError(f"{name}: unknown {side} format {kind!r}; expected {', '.join(known)}; rename it{hint}")
    return kind
