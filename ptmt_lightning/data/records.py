"""Records of CSV, JSON and Parquet files, one by one; one that can't be read says why.

Whoever reads them decides what a bad record means: it is put aside, or refused.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
import sys
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ptmt_lightning.data.document import with_unique_keys
from ptmt_lightning.utils.files import check_file
from ptmt_lightning.utils.lines import MAX_LINE, Lines

SHOWN = 1000  # characters of a row that is too long
_BATCH = 1024  # number of rows of a Parquet file that are read at a time
_MAX_ARRAY = 2**28  # characters of a JSON array, which is read as a whole
_DELIMITERS = ",;\t|"
_MAX_RECORD = 1000  # longest CSV record, in lines; a longer one has a quote that was never closed


class Record(NamedTuple):
    """A row of a table or a value of JSON, or what is wrong with it."""

    number: int  # counted from 1; of JSON lines, that of the line
    where: str  # the file and the line or row in it, for messages
    content: Any  # values by column; of JSON, whatever stands there
    raw: str = ""  # of text files, as it stands there
    error: str | None = None


class CsvTable(NamedTuple):
    """A CSV file whose header has been read."""

    names: list[str]
    delimiter: str
    records: Iterator[Record]


@contextmanager
def open_parquet(source: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file.

    Raises:
        ValueError: there is no such file, or it is damaged or none; also while it is read within the block.
    """
    check_file(Path(source))
    try:
        with Path(source).open("rb") as file:
            yield pq.ParquetFile(file)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{source}: not a whole Parquet file ({reason}); write or copy it again") from None


def parquet_records(file: pq.ParquetFile, source: str, columns: Sequence[str]) -> Iterator[Record]:
    """Yield the rows of a Parquet file, of which only the given columns are read."""
    number = 0
    for batch in file.iter_batches(_BATCH, columns=list(columns)):
        values = [_values(batch.column(name)) for name in columns]
        for cells in zip(*values, strict=True):
            number += 1
            yield Record(number, f"{source}, row {number}", dict(zip(columns, cells, strict=True)))


def _values(column: Any) -> list[Any]:
    """Return a column as Python values; bytes that are not UTF-8 become surrogates, as in the other formats."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        raw = column.cast(pa.binary()).to_pylist()
        values = [value if value is None else value.decode(errors="surrogateescape") for value in raw]
    return values


class _CsvLines:
    """The lines of a CSV file, of which it remembers those of the current record, and can put them back."""

    def __init__(self, file: Lines) -> None:
        self._file, self._lines, self._waiting = file, iter(file), deque[str]()
        self.lines: list[str] = []
        self.number = 0  # of lines that were read and not put back
        self._size = 0

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        if len(self.lines) == _MAX_RECORD or self._size > MAX_LINE:
            raise csv.Error(f"a quote is not closed within {len(self.lines)} lines")
        line = self._waiting.popleft() if self._waiting else next(self._lines)
        self.lines.append(line)
        self.number += 1
        self._size += len(line)
        if self._file.is_cut(line):
            raise csv.Error(too_long(line))
        return line

    def begin(self) -> None:
        """Forget the current record."""
        self.lines, self._size = [], 0

    def put_back(self) -> None:
        """Put back all lines of the current record but its first, to be read again."""
        self._waiting.extendleft(reversed(self.lines[1:]))
        self.number -= len(self.lines) - 1


def csv_table(file: Lines, source: str, wanted: Collection[str], delimiter: str | None = None) -> CsvTable:
    """Read the header of a CSV file; its records are read as they are taken.

    Args:
        file: its lines.
        source: its name, for messages.
        wanted: columns that tell a header that is separated as it should be.
        delimiter: what separates columns; None for the first of the usual ones that gives the most of ``wanted``. A
            line ``sep=;`` before the header, which a spreadsheet writes, says it, too.

    Raises:
        ValueError: the header is no valid CSV.
    """
    csv.field_size_limit(sys.maxsize)  # records are bounded
    lines = _CsvLines(file)
    names, found = _header(lines, source, wanted, delimiter)
    return CsvTable(names, found, _csv_records(lines, source, names, found))


def _header(lines: _CsvLines, source: str, wanted: Collection[str], given: str | None) -> tuple[list[str], str]:
    first = next((line for line in lines if line.strip()), "")
    said = re.fullmatch(r"sep=(.)\r?\n?", first)
    if said:
        first = next(lines, "")
    header: dict[str, list[str]] = {}
    problem = None
    for delimiter in given or (said[1] if said else _DELIMITERS):
        try:
            header[delimiter] = _fields(lines, first, delimiter)
        except csv.Error as error:
            problem = problem or error
        lines.put_back()
        if header.get(delimiter) and set(wanted) <= set(header[delimiter]):
            break
    if not header:
        raise ValueError(f"{source}: the header is invalid CSV: {problem}")
    found = max(header, key=lambda delimiter: (len(set(wanted) & set(header[delimiter])), len(header[delimiter])))
    return _fields(lines, first, found), found


def _fields(lines: _CsvLines, first: str, delimiter: str) -> list[str]:
    lines.lines = [first]
    fields = next(csv.reader(itertools.chain([first], lines), delimiter=delimiter, strict=True), [])
    return [field.strip() for field in fields]


def _csv_records(lines: _CsvLines, source: str, names: Sequence[str], delimiter: str) -> Iterator[Record]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    for number in itertools.count(1):
        fields: list[str] = []
        try:
            while not fields:  # a blank line
                lines.begin()
                where = f"{source}:{lines.number + 1}"
                fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # A stray quote must not cost the lines after it.
            raw = lines.lines[0][:SHOWN].rstrip("\r\n")
            yield Record(number, where, None, raw, f"invalid CSV: {error}")
            lines.put_back()
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            continue
        raw = "".join(lines.lines).rstrip("\r\n")
        if len(fields) != len(names):
            wrong = f"expected {len(names)} fields as in the header, got {len(fields)}"
            yield Record(number, where, None, raw, wrong)
        else:
            yield Record(number, where, dict(zip(names, fields, strict=True)), raw)


def json_records(lines: Lines, source: str) -> Iterator[Record]:
    """Yield the values of a JSON file: one on each line, or the elements of one array, however it is laid out.

    Where only the first line of several is an array, that is a value like the others.

    Raises:
        ValueError: an array is too large, or invalid.
    """
    if not lines.peek_is_array():
        for number, line in enumerate(lines, start=1):
            content = line.removesuffix("\n").removesuffix("\r")
            if lines.is_cut(line):
                yield Record(number, f"{source}:{number}", None, content[:SHOWN], too_long(line))
            elif content.strip():
                yield _json_record(number, source, content)
        return
    content = lines.read(_MAX_ARRAY + 1)
    if len(content) > _MAX_ARRAY:
        raise ValueError(f"{source}: a JSON array of more than {_MAX_ARRAY:,} characters; write an object a line")
    try:
        elements = json.loads(content, object_pairs_hook=with_unique_keys)
    except (ValueError, RecursionError) as error:
        rows = content.split("\n")
        if not _is_json(next(filter(str.strip, rows))):
            raise ValueError(
                f"{source}: begins like a JSON array, and is none ({error}); write an object a line"
            ) from error
        for number, line in enumerate(rows, start=1):
            if line.strip():
                yield _json_record(number, source, line.removesuffix("\r"))
        return
    for number, element in enumerate(elements, start=1):
        yield Record(number, f"{source}, element {number}", element, json.dumps(element))


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _json_record(number: int, source: str, line: str) -> Record:
    where = f"{source}:{number}"
    try:
        return Record(number, where, json.loads(line, object_pairs_hook=with_unique_keys), line)
    except (ValueError, RecursionError) as error:
        return Record(number, where, None, line, f"invalid JSON: {error}")


def too_long(line: str) -> str:
    """Return what is wrong with a line that was cut after one character too many."""
    return f"the line has more than {len(line) - 1:,} characters"
