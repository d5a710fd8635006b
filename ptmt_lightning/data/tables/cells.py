"""Texts and label paths from the cells of a table."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from math import isfinite
from typing import Any
from unicodedata import normalize

from ptmt_lightning.data.tables.options import TableOptions
from ptmt_lightning.taxonomy.files import problem_of_name
from ptmt_lightning.utils.checks import shortened
from ptmt_lightning.utils.tokens import is_unicode

Path_ = tuple[str, ...]
_LONGEST_LABEL = 500  # characters
_LONGEST_LIST = 2**16  # characters of a text that holds a list
_EMPTY = {"nan", "NaN", "NAN", "<NA>", "#N/A", "null", "NULL"}  # what programs write for an empty cell
_WHOLE = re.compile(r"(-?\d+)\.0+")  # 1.0, which a column of whole numbers becomes that has an empty cell


def is_empty(value: Any) -> bool:
    """Return whether a cell holds nothing: None, not a number, or white space alone."""
    if isinstance(value, str):
        return not value.strip()
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )


class Cells:
    """Reads cells as the options say.

    Args:
        options: separators of paths, and how messages name settings.
        notes: what was read otherwise than it is written is counted here, by what to tell the user.
    """

    def __init__(self, options: TableOptions, notes: Counter[str]) -> None:
        self._options, self._notes = options, notes

    def text(self, row: Mapping[str, Any], columns: Sequence[str]) -> str:
        """Return the texts of the columns, joined by blank lines; empty ones are left out.

        Raises:
            ValueError: all of them are empty, or one is no text.
        """
        parts = [_text(value, column) for column in columns if not is_empty(value := _plain(row.get(column)))]
        if not parts:
            raise ValueError(f"column {_joined(columns)}: the text is empty; fill it in or delete the row")
        return "\n\n".join(parts)

    def path_of_levels(self, row: Mapping[str, Any], columns: Sequence[str]) -> list[Path_]:
        """Return the one path that columns of labels give, from the top level down; none if all of them are empty.

        Raises:
            ValueError: a cell above the last label is empty, or one is no label.
        """
        values = [_plain(row.get(column)) for column in columns]
        depth = max((i + 1 for i, value in enumerate(values) if not is_empty(value)), default=0)
        for column, value in zip(columns[:depth], values, strict=False):
            if is_empty(value):
                raise ValueError(
                    f"column {column!r}: empty, but {columns[depth - 1]!r} below it holds "
                    f"{_shown(values[depth - 1])}; expected a label on each level down to the last; fill it in"
                )
        return [tuple(map(self._label, values[:depth], columns[:depth]))] if depth else []

    def paths(self, value: Any, column: str) -> list[Path_]:
        """Return the label paths of a cell: a text with separators, or a list of paths, real or as text.

        Raises:
            ValueError: the cell is neither, or a path has an empty label.
        """
        value = _plain(value)
        if is_empty(value):
            return []
        if isinstance(value, str) and value.strip().startswith("[") and value.strip().endswith("]"):
            value = _list_of(value.strip(), column)
        if isinstance(value, str):
            separator = self._options.path_separator
            found = [self._split(part, column) for part in (value.split(separator) if separator else [value])]
        elif isinstance(value, (list, tuple)):
            found = self._of_list(value, column)
        else:
            found = [(self._label(value, column),)]
        return list(dict.fromkeys(found))

    def _of_list(self, values: Sequence[Any], column: str) -> list[Path_]:
        if all(isinstance(part, (list, tuple)) for part in values):
            return [self._of_names(part, column) for part in values]
        if any(isinstance(part, (list, tuple, dict)) for part in values):
            raise ValueError(
                f"column {column!r}: {_shown(values)}: expected a list of paths, such as "
                '[["level 1", "level 2"], ...], or of texts; write one of the two'
            )
        found = [
            self._split(part, column) if isinstance(part, str) else (self._label(part, column),) for part in values
        ]
        if len(found) > 1 and all(len(path) == 1 for path in found):
            self._notes[
                f'a list of texts in {column!r} is taken for several labels; of one path write [["A", "B"]]'
            ] += 1
        return found

    def _of_names(self, names: Sequence[Any], column: str) -> Path_:
        names = [_plain(name) for name in names]
        if not names or any(map(is_empty, names)):
            raise ValueError(
                f"column {column!r}: {_shown(names)}: an empty label; expected one on each level of a path; fill it in"
            )
        return tuple(self._label(name, column) for name in names)

    def _split(self, text: str, column: str) -> Path_:
        separator = self._options.level_separator
        names = text.split(separator)
        if not all(map(str.strip, names)):
            raise ValueError(
                f"column {column!r}: {_shown(text)}: an empty label beside a separator; expected labels with "
                f"{separator!r} between levels and {self._options.path_separator!r} between paths; fill it in, or set "
                f"{self._options.named('level_separator')} or {self._options.named('path_separator')}"
            )
        return tuple(self._label(name, column) for name in names)

    def _label(self, value: Any, column: str) -> str:
        name = _label_text(value, column)
        if whole := _WHOLE.fullmatch(name):
            self._notes[f"labels such as {name!r} are taken for whole numbers, {whole[1]!r}"] += 1
            return whole[1]
        return name


def _label_text(value: Any, column: str) -> str:
    problem = None
    if isinstance(value, str):
        name = normalize("NFC", " ".join(value.split()))
        if name in _EMPTY:
            problem = "what programs write for an empty cell; expected a label; empty the cell or rename the label"
        elif len(name) > _LONGEST_LABEL:
            problem = f"{len(name):,} characters; expected a label; is this the column of the text?"
        elif not is_unicode(name):
            problem = _undecoded(name)
        else:
            problem = problem_of_name(name)
    elif isinstance(value, (bool, int)):
        name = str(value)
    elif isinstance(value, float) and isfinite(value):
        name = str(int(value)) if value.is_integer() else repr(value)
    elif isinstance(value, (date, datetime, time, timedelta)):
        problem = (
            "a date or time; expected a label, which a spreadsheet may have changed; give the column the format text, "
            "and write it anew"
        )
    else:
        problem = f"{type(value).__name__}; expected a label, a text or number"
    if problem:
        raise ValueError(f"column {column!r}: {_shown(value)}: {problem}")
    return name


def _text(value: Any, column: str) -> str:
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer():  # all numbers of a spreadsheet
        return str(int(value))
    if isinstance(value, (bool, int, float)):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"column {column!r}: {_shown(value)}: {type(value).__name__}; expected a text")
    if "\0" in value:
        raise ValueError(f"column {column!r}: NUL characters in the text; set the encoding, or save the file as UTF-8")
    if not is_unicode(value):
        raise ValueError(f"column {column!r}: {_undecoded(value)}")
    return value


def _undecoded(value: str) -> str:
    """Return what is wrong with a text that is not UTF-8, and how it reads in the encoding of older Windows."""
    raw = value.encode(errors="surrogateescape") if not any("\ud800" <= c < "\udc80" for c in value) else b""
    try:
        place = next(i for i, c in enumerate(value) if "\udc80" <= c <= "\udcff")
        text = raw.decode("cp1252")
    except (UnicodeDecodeError, StopIteration):
        return "bytes that are not UTF-8; set the encoding, or save the file as UTF-8"
    start = max(0, len(value[:place].encode(errors="surrogateescape")) - 10)
    return (
        "bytes that are not UTF-8; set the encoding, or save the file as UTF-8. In cp1252 (Windows, Western Europe) it "
        f"reads {text[start : start + 25]!r}"
    )


def _plain(value: Any) -> Any:
    """Return a value of Python in place of one of NumPy."""
    return value.tolist() if type(value).__module__ == "numpy" else value


def _list_of(text: str, column: str) -> Any:
    """Return the list that a text holds, as JSON or as Python prints it."""
    problem = (
        f'column {column!r}: {_shown(text)}: expected a list as JSON, such as [["level 1", "level 2"]]; correct it'
    )
    if len(text) > _LONGEST_LIST:
        raise ValueError(problem)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise ValueError(problem) from None


def _shown(value: Any) -> str:
    return shortened(repr(value), 80)


def _joined(columns: Sequence[str]) -> str:
    return ", ".join(map(repr, columns))
