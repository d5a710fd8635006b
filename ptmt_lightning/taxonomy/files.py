"""The two forms of ``taxonomy.tsv``: edges between names, and whole paths, of which each is a node of its own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

from ptmt_lightning.taxonomy.edges import ROOT
from ptmt_lightning.utils.checks import shortened
from ptmt_lightning.utils.files import check_file
from ptmt_lightning.utils.lines import open_lines, problem_of
from ptmt_lightning.utils.tokens import is_unicode

STEP = " > "  # between the labels of a path that is written in one piece

_MAX_LINE, _MAX_EDGES = 2**14, 2**20  # characters of a line, edges of a taxonomy: far beyond any that is used
_EDGE, _HEADER = "parent<TAB>child", "level1<TAB>level2<TAB>..."
_MEANT_AS_HEADER = re.compile(r"\s*level[ _-]?\d+\s*", re.IGNORECASE)


class NamedEdges(NamedTuple):
    """Edges between nodes that are named by unique identifiers."""

    edges: list[tuple[str, str]]
    labels: dict[str, str]  # the short name of each node that has another one than its identifier


def read_tsv(path: Path) -> NamedEdges:
    """Read a file of either form; names are brought into Unicode's form NFC.

    Raises:
        ValueError: no such file, an empty or malformed one, or duplicate paths.
    """
    check_file(path, f"expected the taxonomy as one '{_EDGE}' edge a line")
    rows = list(_rows(path))
    if not rows:
        raise ValueError(
            f"{path}: the file is empty; expected one '{_EDGE}' edge a line, top nodes under {ROOT}, "
            f"or one path a line under the header '{_HEADER}'"
        )
    if _is_header(rows[0]):
        return edges_of_paths(_read_paths(rows, str(path)), str(path))
    return NamedEdges([_edge(row, f"{path}:{number}") for number, row in enumerate(rows, start=1)], {})


def write_paths(path: Path, paths: Sequence[Sequence[str]]) -> None:
    """Write a file of the second form, one path a line."""
    header = [f"level{level}" for level in range(1, max(map(len, paths)) + 1)]
    path.write_text("".join("\t".join(row) + "\n" for row in (header, *paths)), encoding="utf-8")


def edges_of_paths(paths: Iterable[Sequence[str]], source: str) -> NamedEdges:
    """Return the edges of a tree with a node for each path and each beginning of one, in the order of first occurrence.

    The identifier of a node is its name where no other node has that, else its whole path, joined by :data:`STEP`.

    Raises:
        ValueError: two nodes get the same identifier, or there are too many; the message begins with ``source``.
    """
    nodes: dict[tuple[str, ...], None] = {}  # as an ordered set
    for path in paths:
        nodes.update(dict.fromkeys(tuple(path[:end]) for end in range(1, len(path) + 1)))
        if len(nodes) > _MAX_EDGES:
            raise ValueError(f"{source}: more than {_MAX_EDGES:,} labels; expected fewer, remove those without use")
    counts = Counter(path[-1] for path in nodes)
    name_of: dict[tuple[str, ...], str] = {(): ROOT}
    path_of: dict[str, tuple[str, ...]] = {}
    for path in nodes:
        name = name_of[path] = path[-1] if counts[path[-1]] == 1 else STEP.join(path)
        other = path_of.setdefault(name, path)
        if other != path:
            raise ValueError(
                f"{source}: the paths {shortened(list(other))} and {shortened(list(path))} both read "
                f"{shortened(name)!r}; expected names that tell them apart; rename one without {STEP!r} in it"
            )
    edges = [(name_of[path[:-1]], name_of[path]) for path in nodes]
    return NamedEdges(edges, {name: path[-1] for name, path in path_of.items() if name != path[-1]})


def problem_of_name(name: str) -> str | None:
    """Return why a string can't be the name of a node in a path, in words that say what to do; None if it can."""
    if not name.strip():
        return "expected a name; fill it in, or let the path end above it"
    if name == ROOT:
        return f"{ROOT} stands for what is above all paths; begin the path below it, or rename the label"
    if name != name.strip():
        return "expected a name without blanks around it; remove them"
    if re.search(r"[\t\n\r\0]", name):
        return "expected a name on one line without tabs and NUL characters; replace them by spaces"
    if not is_unicode(name):
        return "half of a surrogate pair is not a character; correct it"
    return None


def _rows(path: Path) -> Iterator[list[str]]:
    """Yield the cells of each line, in form NFC; blank lines are allowed only at the end."""
    first_blank, expected = 0, f"'{_EDGE}'"
    with open_lines(path, longest=_MAX_LINE, newline=None) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                first_blank = first_blank or number
                continue
            if first_blank:
                raise ValueError(f"{path}:{first_blank}: expected {expected}, got ''")
            problem = problem_of(line)
            if lines.is_cut(line):
                problem = f"more than {_MAX_LINE:,} characters; expected {expected}"
            elif number > _MAX_EDGES:
                problem = f"more than {_MAX_EDGES:,} edges; expected one a label and parent"
            if problem:
                raise ValueError(f"{path}:{number}: {problem}")
            row = normalize("NFC", line.rstrip("\n")).split("\t")
            if number == 1 and _is_header(row):
                expected = "one path a line, a name in each cell"
            yield row


def _is_header(row: Sequence[str]) -> bool:
    """Return whether a first line is meant as names of columns, be they the right ones or not."""
    return all(_MEANT_AS_HEADER.fullmatch(cell) for cell in row if cell)


def _edge(row: Sequence[str], where: str) -> tuple[str, str]:
    fields = [field.strip() for field in row]
    if len(fields) != 2 or not all(fields):
        raise ValueError(
            f"{where}: expected '{_EDGE}', got {shortened(repr(chr(9).join(row)))}; for whole paths, "
            f"let the file begin with the line '{_HEADER}'"
        )
    return fields[0], fields[1]


def _read_paths(rows: Sequence[Sequence[str]], source: str) -> list[tuple[str, ...]]:
    header = rows[0]
    if list(header) != [f"level{level}" for level in range(1, len(header) + 1)]:
        raise ValueError(
            f"{source}:1: header {shortened(repr(chr(9).join(header)))}: expected '{_HEADER}', one column a level "
            "from level1 on; name the columns so"
        )
    if len(rows) == 1:
        raise ValueError(f"{source}: no path below the header; expected one a line; add them")
    line_of: dict[tuple[str, ...], int] = {}
    for number, row in enumerate(rows[1:], start=2):
        path = _path(row, len(header), f"{source}:{number}")
        first = line_of.setdefault(path, number)
        if first != number:
            raise ValueError(
                f"{source}:{number}: duplicate path {shortened(STEP.join(path))!r}, first on line {first}; "
                "delete one of the two"
            )
    return list(line_of)


def _path(row: Sequence[str], num_levels: int, where: str) -> tuple[str, ...]:
    cells = list(row)
    while cells and not cells[-1]:
        cells.pop()
    if len(cells) > num_levels:
        raise ValueError(
            f"{where}: {len(cells)} cells, got {shortened(repr(chr(9).join(row)))}; expected at most {num_levels}, as "
            "the header has; add columns to the header, or shorten the path"
        )
    for level, cell in enumerate(cells, start=1):
        if problem := problem_of_name(cell):
            raise ValueError(f"{where}: level{level}={shortened(cell)!r}: {problem}")
    return tuple(cells)
