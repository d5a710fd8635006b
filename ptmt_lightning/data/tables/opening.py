"""Tables of several formats, opened as names of columns and records."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from python_calamine import CalamineError, CalamineWorkbook, PasswordError

from ptmt_lightning.data.records import (
    Record,
    csv_table,
    json_records,
    open_parquet,
    parquet_records,
)
from ptmt_lightning.data.tables.options import ANNOTATIONS, FORMATS, TableOptions
from ptmt_lightning.utils.checks import shortened
from ptmt_lightning.utils.files import check_file
from ptmt_lightning.utils.lines import open_lines

_PEEKED = 1000  # records of a JSON file whose keys are its columns
_OLD_OFFICE = b"\xd0\xcf\x11\xe0"


class Table(NamedTuple):
    """An open table."""

    names: list[str]  # of its columns, as often as they are there
    records: Iterator[Record]
    remark: str = ""  # on the columns, for messages


def format_of(path: Path, options: TableOptions) -> str | None:
    """Return the format of a file, by its name unless the options say it; None for a name of another kind."""
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix.removeprefix(".")
    is_packed = path.name.lower().endswith(".gz")
    if options.format is not None and options.format not in ANNOTATIONS:
        return options.format
    return suffix if suffix in FORMATS and not (is_packed and suffix in ("xlsx", "parquet")) else None


@contextmanager
def open_table(path: Path, options: TableOptions, wanted: Collection[str]) -> Iterator[Table]:
    """Open a file as a table.

    Args:
        path: of the file.
        options: format, encoding, delimiter, sheet.
        wanted: columns that it is sure to have.

    Raises:
        ValueError: the file is not of its format or damaged, or its name tells no format; also while it is read.
    """
    kind, source = format_of(path, options), str(path)
    check_file(path)
    if kind is None:
        raise ValueError(
            f"{path}: unknown format {''.join(path.suffixes[-2:])!r}; expected {', '.join(FORMATS)}, text also with "
            f".gz; rename it, or set {options.named('format')}"
        )
    if kind == "xlsx":
        yield _sheet(path, options)
    elif kind == "parquet":
        with open_parquet(source) as file:
            names = [name.strip() for name in file.schema_arrow.names]
            yield Table(names, parquet_records(file, source, file.schema_arrow.names))
    else:
        with open_lines(path, encoding=options.encoding) as lines:
            if kind in ("csv", "tsv"):
                delimiter = options.delimiter or ("\t" if kind == "tsv" else None)
                names, found, records = csv_table(lines, source, wanted, delimiter)
                yield Table(names, records, f" separated by {found!r}")
            else:
                yield _json_table(json_records(lines, source), source)


def _json_table(records: Iterator[Record], source: str) -> Table:
    first, records = peeked(records)
    if not first:
        raise ValueError(f"{source}: it is empty; expected an object a line, or an array of objects, each a document")
    names = keys_of(first)
    if not names:
        problem = first[0].error or f"{shortened(repr(first[0].content), 80)}: a {type(first[0].content).__name__}"
        raise ValueError(f"{first[0].where}: {problem}; expected an object a line, or one array of objects")
    return Table(names, records)


def peeked(records: Iterator[Record]) -> tuple[list[Record], Iterator[Record]]:
    """Return the first thousand records, and all of them."""
    first = list(itertools.islice(records, _PEEKED))
    return first, itertools.chain(first, records)


def keys_of(records: Iterable[Record]) -> list[str]:
    """Return the keys of all records that are objects, each once."""
    return list(dict.fromkeys(key for record in records if isinstance(record.content, dict) for key in record.content))


def _sheet(path: Path, options: TableOptions) -> Table:
    with path.open("rb") as file:
        if file.read(4) == _OLD_OFFICE:
            raise ValueError(
                f"{path}: protected by a password, or an Excel file of the old form; save it as .xlsx without one"
            )
    try:
        with CalamineWorkbook.from_path(path) as book:
            sheets = book.sheet_names
            name = options.sheet or sheets[0]
            if name not in sheets:
                raise ValueError(
                    f"{path}: no sheet {name!r}; it has {shortened(', '.join(map(repr, sheets)))}; "
                    f"set {options.named('sheet')}"
                )
            rows = list(enumerate(book.get_sheet_by_name(name).iter_rows(), start=1))
    except PasswordError:
        raise ValueError(f"{path}: protected by a password; save it without one") from None
    except (CalamineError, OSError, IndexError) as error:
        raise ValueError(f"{path}: not an Excel workbook ({error}); save it as .xlsx again") from None
    where = f"{path}, sheet {name!r}" if len(sheets) > 1 else str(path)
    filled = [(number, cells) for number, cells in rows if any(cell != "" for cell in cells)]
    header = [str(cell).strip() for cell in filled[0][1]] if filled else []
    remark = f" in sheet {name!r} of {len(sheets)}" if len(sheets) > 1 else ""
    records = (
        Record(index, f"{where}, row {number}", dict(zip(header, cells, strict=True)))
        for index, (number, cells) in enumerate(filled[1:], start=1)
    )
    return Table(header, records, remark)


def frame_table(frame: pd.DataFrame) -> Table:
    """Return a data frame as a table; its rows are counted from 0, as ``iloc`` does."""
    names = [str(name) for name in frame.columns]
    rows = frame.itertuples(index=False, name=None)
    records = (
        Record(number + 1, f"data frame, iloc {number}", dict(zip(names, row, strict=True)))
        for number, row in enumerate(rows)
    )
    return Table(names, records)
