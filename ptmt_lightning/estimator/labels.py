"""Texts and label paths in the forms in which users of scikit-learn have them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from ptmt_lightning.data.tables.cells import Cells, Path_, is_empty
from ptmt_lightning.data.tables.options import TableOptions
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils.checks import shortened

Kind = Literal["text", "path", "paths"]
_EXPECTED = "a text such as 'A > B', a path such as ['A', 'B'], or a list of paths"


class LabelForm(NamedTuple):
    """The form in which the label paths of texts are given and returned.

    Attributes:
        kind: ``text``: a string with separators; ``path``: a sequence of labels, from the top level down, for at most
            one path; ``paths``: a list of such sequences.
        path_type: list or tuple, which a path is.
        level_separator: between the labels of a text.
        path_separator: between the paths of a text; None where a text is at most one path.
    """

    kind: Kind
    path_type: Callable[[Sequence[str]], Sequence[str]]
    level_separator: str
    path_separator: str | None

    def shaped(self, paths: Sequence[Sequence[str]]) -> Any:
        """Return the paths of one text in this form; where it has room for one path, the first.

        Args:
            paths: labels of each path, from the top level down; the most probable path first.
        """
        given = [self.path_type(path) for path in paths]
        if self.kind == "paths":
            return given
        if self.kind == "path":
            return given[0] if given else self.path_type([])
        texts = [f" {self.level_separator} ".join(path) for path in given]
        return f" {self.path_separator} ".join(texts) if self.path_separator else next(iter(texts), "")


class Labelled(NamedTuple):
    """Texts and their label paths."""

    texts: list[str]
    paths: list[list[Path_]]
    form: LabelForm  # in which the paths were given


def read_labels(y: Any, key: str, options: TableOptions) -> tuple[list[list[Path_]], LabelForm]:
    """Return the label paths of each text, and the form in which they were given.

    Args:
        y: labels one text after the other, all in one of the forms of :class:`LabelForm`; an empty text or list, None
            or NaN for none.
        key: what messages call them.
        options: separators.

    Raises:
        ValueError: an entry is in no such form, or in another than the rest; or a label can't name a node.
    """
    values = [_plain(value) for value in entries(y, key)]
    form = _form(values, key, options)
    cells = Cells(options, Counter())
    paths = []
    for place, value in enumerate(values):
        cell = [value] if form.kind == "path" and not _is_nothing(value) else value
        paths.append(cells.paths(cell, f"{key}[{place}]"))
    return paths, form


def read_texts(X: Any, key: str) -> list[str]:
    """Return texts as a list.

    Args:
        X: the texts: a list, a column of a data frame, an array of one dimension.
        key: what messages call them.

    Raises:
        ValueError: an entry is not a text, or an empty one.
    """
    texts = entries(X, key)
    cells = Cells(TableOptions(), Counter())
    for place, text in enumerate(texts):
        where = f"{key}[{place}]"
        if not isinstance(text, str):
            raise ValueError(f"{where}={shortened(repr(text), 80)}: expected a text; fill it in, or leave it out")
        cells.text({where: text}, [where])  # refuses what a table can't hold
    return texts


def nodes_of(taxonomy: Taxonomy, paths: Sequence[Sequence[Path_]], key: str) -> list[list[int]]:
    """Return the nodes on each text's label paths.

    Raises:
        ValueError: a path is not in the taxonomy; the message names the text's place.
    """
    found = []
    for place, several in enumerate(paths):
        try:
            found.append(taxonomy.encode(several))
        except ValueError as error:
            raise ValueError(f"{key}[{place}]: {error}; correct it, or add the path to taxonomy") from None
    return found


def entries(column: Any, key: str) -> list[Any]:
    """Return what stands in a list, an array or a column of a data frame, one after the other.

    Raises:
        ValueError: it is something else, such as a data frame or a single text.
    """
    if isinstance(column, str) or hasattr(column, "columns") or not isinstance(column, Iterable):
        hint = "give one column of it, such as frame['text']" if hasattr(column, "columns") else "give a list"
        raise ValueError(f"{key}: expected a list, an array or a column, got {type(column).__name__}; {hint}")
    return list(column)


def _form(values: Sequence[Any], key: str, options: TableOptions) -> LabelForm:
    kinds: dict[Kind, int] = {}  # with the place of the first of each
    path_type: Callable[[Sequence[str]], Sequence[str]] = list
    for place, value in enumerate(values):
        if _is_nothing(value):
            continue
        kind = _kind(value)
        if kind is None:
            raise ValueError(f"{key}[{place}]={shortened(repr(value), 80)}: expected {_EXPECTED}; write it as one")
        if kind not in kinds:
            kinds[kind] = place
            path_type = tuple if isinstance(value if kind == "path" else value[0], tuple) else list
    if len(kinds) > 1:
        (one, first), (other, second), *_ = kinds.items()
        raise ValueError(
            f"{key}[{first}] is a {one}, {key}[{second}] is {'a' if other != 'paths' else 'a list of'} {other}; "
            "expected one form for all; write them alike"
        )
    return LabelForm(next(iter(kinds), "paths"), path_type, options.level_separator, options.path_separator)


def _kind(value: Any) -> Kind | None:
    if isinstance(value, str):
        return "text"
    if not isinstance(value, (list, tuple)):
        return None
    nested = {isinstance(part, (list, tuple)) for part in value}
    return None if len(nested) > 1 else ("paths" if True in nested else "path")


def _is_nothing(value: Any) -> bool:
    return len(value) == 0 if isinstance(value, (list, tuple)) else is_empty(value)


def _plain(value: Any) -> Any:
    """Return lists in place of arrays, which columns of Parquet files hold."""
    if isinstance(value, np.ndarray):
        return [_plain(part) for part in value.tolist()]
    return value
