"""Which columns of a table hold text, labels and splits."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ptmt_lightning.data.tables.options import TableOptions
from ptmt_lightning.utils.checks import shortened
from ptmt_lightning.utils.lines import NUL_HINT

_PATHS = ("labels", "label", "paths", "path")
_LEVEL = re.compile(r"level[ _-]?(\d+)", re.I)


class Columns(NamedTuple):
    """The columns that are read."""

    text: tuple[str, ...]
    levels: tuple[str, ...]  # none where there are paths
    paths: str | None
    split: str | None

    @property
    def used(self) -> list[str]:
        """All of them, each once."""
        return list(dict.fromkeys([*self.text, *self.levels, *filter(None, (self.paths, self.split))]))

    def sentence(self, options: TableOptions) -> str:
        """Return one line that says where text and labels are taken from, and what of it was assumed."""
        labels = ", ".join(map(repr, self.levels)) if self.levels else f"paths in {self.paths!r}"
        assumed = [] if options.text else [options.named("text")]
        if not options.levels and not options.paths:
            assumed.append(f"{options.named('levels')} or {options.named('paths')}")
        said = f"text from {' and '.join(map(repr, self.text))}, labels from {labels}"
        return said + (f" (assumed; set {', '.join(assumed)} for others)" if assumed else "")


def wanted(options: TableOptions) -> set[str]:
    """Return columns that the header of the table is sure to have, by which its delimiter is told."""
    named = (name for key in ("levels", "paths", "split_column") for name in options.columns(key))
    return {*named, *(options.columns("text") or ("text",))}


def resolve(names: Sequence[str], options: TableOptions, source: str, remark: str = "") -> Columns:
    """Return the columns to read of a table: those that the options name, and the usual ones in place of others.

    Args:
        names: of the table's columns.
        options: which columns are asked for.
        source: name of the table, for messages.
        remark: what messages say behind the names of its columns.

    Raises:
        ValueError: a column is missing or there twice, or none of the usual ones is there.
    """
    if not any(names):
        raise ValueError(f"{source}: it is empty; expected a header that names the columns, and a document a row")
    found = f"it has {shortened(', '.join(map(repr, names)))}{remark if len(names) > 1 else ''}"
    if any("\0" in name for name in names):
        raise ValueError(f"{source}: its header holds {NUL_HINT}, or set {options.named('encoding')}")
    for key in ("text", "levels", "paths", "split_column"):
        _check_there(options.columns(key), names, found, options, key, source)
    text = options.columns("text") or tuple(name for name in names if name.lower() == "text")[:1]
    if not text:
        raise ValueError(f"{source}: no column 'text'; {found}; set {options.named('text')} to the one with the text")
    levels, paths = options.columns("levels"), options.paths
    if not levels and paths is None:
        levels = _level_columns(names, source)
        known = {name.lower(): name for name in reversed(names)}
        paths = None if levels else next((known[name] for name in _PATHS if name in known), None)
        if not levels and paths is None:
            raise ValueError(
                f"{source}: no column of labels; {found}; set {options.named('levels')} to the columns from the top "
                f"level down, or {options.named('paths')} to one with whole paths"
            )
    columns = Columns(text, levels, paths, options.split_column)
    _check_there(columns.used, names, found, options, "text", source)
    if both := set(text) & {*levels, paths}:
        raise ValueError(f"{source}: column {both.pop()!r}: text and label at once; set {options.named('text')}")
    return columns


def _check_there(
    wanted: Iterable[str], names: Sequence[str], found: str, options: TableOptions, key: str, source: str
) -> None:
    for name in wanted:
        if names.count(name) > 1:
            raise ValueError(f"{source}: more than one column {name!r}; {found}; rename all but one")
        if name not in names:
            known = {other.lower(): other for other in names}
            near = difflib.get_close_matches(name.lower()[:100], list(known), n=1)
            hint = f" (did you mean {known[near[0]]!r}?)" if near else ""
            raise ValueError(f"{source}: no column {name!r}{hint}; {found}; set {options.named(key)}")


def _level_columns(names: Sequence[str], source: str) -> tuple[str, ...]:
    """Return the columns ``level1``, ``level2``, ... in the order of their numbers."""
    numbered = sorted((int(match[1]), name) for name in names if (match := _LEVEL.fullmatch(name)))
    numbers = [number for number, _ in numbered]
    if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        shown = ", ".join(repr(name) for _, name in numbered)
        raise ValueError(f"{source}: columns {shown}: expected each level once, without gaps; rename or add one")
    return tuple(name for _, name in numbered)
