"""How a table of labelled documents is to be read."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ptmt_lightning.utils.checks import check_range

FORMATS = ("csv", "tsv", "xlsx", "parquet", "json", "jsonl")
ANNOTATIONS = ("label-studio", "argilla")  # exports of annotation tools, in JSON; Argilla's also as a table
_SPLIT_NAMES = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev", "development", "eval"),
    "test": ("test", "testing", "tst"),
}
_SPLIT_OF = {name: split for split, names in _SPLIT_NAMES.items() for name in names}
EXPECTED_SPLITS = "expected train, val (valid, validation, dev) or test"


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Settings of a conversion.

    Args:
        text: column of the text, or several, which are joined by blank lines; None for ``text``.
        levels: columns of the labels, from the top level down. None: the columns ``level1``, ``level2``, ..., unless
            ``paths`` is given or there are none.
        paths: column of whole label paths; None for ``labels``, ``label``, ``paths`` or ``path``.
        level_separator: stands between the labels of a path that is one text.
        path_separator: stands between several paths in one text; None where a text is always one path.
        delimiter: stands between the columns of a CSV file; None to find it.
        encoding: of a text file; None for that of its byte-order mark, UTF-8 without one.
        sheet: name of an Excel file's sheet; None for the first one.
        format: of the file, one of :data:`FORMATS`, or of :data:`ANNOTATIONS`; None to tell it by name and content.
        split_column: column that says which split a row belongs to.
        split_seed: decides which documents go into a split that the data lack.
        val_share: share of the documents that a validation split is to have where the data have none; 0 for none.
        test_share: the same of a test split.
        taxonomy: file with the taxonomy; None for that of the documents' own paths.
        skip_bad_rows: leave rows out that can't be used, and count them, instead of refusing the file.
        prefix: what stands before a setting's name where messages name it, ``dataset.`` or ``--``.

    Raises:
        ValueError: a setting is out of its range, or contradicts another; the message names it.
    """

    text: str | Sequence[str] | None = None
    levels: str | Sequence[str] | None = None
    paths: str | None = None
    level_separator: str = ">"
    path_separator: str | None = "|"
    delimiter: str | None = None
    encoding: str | None = None
    sheet: str | None = None
    format: str | None = None
    split_column: str | None = None
    split_seed: int = 0
    val_share: float = 0.1
    test_share: float = 0.1
    taxonomy: str | None = None
    skip_bad_rows: bool = False
    prefix: str = "dataset."

    def __post_init__(self) -> None:
        for key in ("val_share", "test_share"):
            check_range(self.named(key), getattr(self, key), 0, 1, high_open=True)
        if self.val_share + self.test_share >= 1:
            self._refuse("test_share", f"with a val_share of {self.val_share} nothing is left to train on; lower one")
        check_range(self.named("split_seed"), self.split_seed, 0, integer=True)
        if self.levels and self.paths:
            self._refuse("paths", f"labels are in the columns levels={self.levels!r} already; leave one of the two out")
        for key in ("text", "levels"):
            if isinstance(getattr(self, key), (list, tuple)) and len(set(getattr(self, key))) < len(getattr(self, key)):
                self._refuse(key, "expected each column once; leave the second out")
        if not self.level_separator.strip() or self.path_separator == self.level_separator:
            self._refuse("level_separator", "expected characters other than spaces and path_separator, such as '>'")
        if self.path_separator is not None and not self.path_separator.strip():
            self._refuse("path_separator", "expected characters other than spaces, such as '|', or null")
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            self._refuse("delimiter", "expected one character, such as ';'")
        if self.format is not None and self.format not in FORMATS + ANNOTATIONS:
            self._refuse("format", f"expected one of {', '.join(FORMATS + ANNOTATIONS)}")
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except LookupError:
                self._refuse("encoding", "there is no such encoding; expected one such as utf-8, utf-16 or cp1252")

    def named(self, key: str) -> str:
        """Return a setting's name as the user writes it."""
        return self.prefix + (key.replace("_", "-") if self.prefix == "--" else key)

    def columns(self, key: str) -> tuple[str, ...]:
        """Return the columns that a setting such as ``levels`` names, none if it is not set."""
        value = getattr(self, key)
        return (value,) if isinstance(value, str) else tuple(value or ())

    def content(self) -> dict[str, Any]:
        """Return what decides the converted documents, in plain types; of the taxonomy its bytes, as a digest."""
        content = asdict(self) | {key: list(self.columns(key)) for key in ("text", "levels")}
        del content["prefix"]
        return content

    def _refuse(self, key: str, problem: str) -> None:
        raise ValueError(f"{self.named(key)}={getattr(self, key)!r}: {problem}")


def split_of(name: str) -> str | None:
    """Return the split that a name stands for, such as ``val`` for ``Validation``; None if it is none."""
    return _SPLIT_OF.get(name.strip().lower())


def name_of(path: str) -> str:
    """Return what a table is called: the name of its file or folder, without the ends that tell its format."""
    name = Path(path.removeprefix("hf://").partition("@")[0]).name
    lower = name.lower().removesuffix(".gz")
    for kind in FORMATS:
        lower = lower.removesuffix(f".{kind}")
    return name[: len(lower)] or name
