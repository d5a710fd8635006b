"""The data module of a table: it is converted into the project's own form once, and used like any other data."""

from __future__ import annotations

import logging
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock
from lightning.pytorch.utilities import rank_zero_only

from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.data.document import split_file
from ptmt_lightning.data.tables.convert import convert, said_of
from ptmt_lightning.data.tables.options import TableOptions, name_of
from ptmt_lightning.data.tables.sources import Source, source_of
from ptmt_lightning.utils.digests import digest
from ptmt_lightning.utils.files import remove_abandoned

log = logging.getLogger(__name__)

_VERSION = 1  # version of the converted form; part of its key
_OPTIONS = {field.name for field in fields(TableOptions)}


class TableDataModule(HTCDataModule):
    """Data from a table: a file, a folder with a file a split, a data set of a hub, or a data frame.

    Example:
        ``TableDataModule(frame, text=["title", "body"], levels=["department", "category"])``

    Args:
        path: of a ``.csv``, ``.tsv``, ``.xlsx``, ``.parquet``, ``.json`` or ``.jsonl`` file (text also ``.gz``) or of a
            folder with one named train, and val, test; ``hf://OWNER/NAME``; or a data frame.
        name: the name of the data in tables (default: that of the file or folder).
        settings: those of :class:`~ptmt_lightning.data.tables.options.TableOptions`, which say how the table is read,
            and of :class:`~ptmt_lightning.data.datamodule.HTCDataModule`.

    Raises:
        ValueError: a setting is out of its range; the message names it.
    """

    def __init__(self, path: str | Path | pd.DataFrame, *, name: str | None = None, **settings: Any) -> None:
        self.options = TableOptions(**{key: value for key, value in settings.items() if key in _OPTIONS})
        self.table = path if isinstance(path, pd.DataFrame) else str(path)
        shared = {key: value for key, value in settings.items() if key not in _OPTIONS}
        found = "table" if isinstance(self.table, pd.DataFrame) else name_of(self.table)
        super().__init__(found, name=name or found, **shared)

    def prepare_data(self) -> None:
        """Convert the table into a folder of the cache, unless that was done before with the same settings.

        Raises:
            ValueError: the table can't be used; the message names file, row, column and value, and what to do.
        """
        source = source_of(self.table, self.options)
        self.path = self.cache_dir / f"table-{self._key(source)}"
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock"):
            if not self.path.exists():
                remove_abandoned(self.cache_dir.glob("table-*.*.tmp"))  # of other tables, too
                convert(source, self.options, self.path)
        for line in said_of(self.path):
            rank_zero_only(log.info)("%s", line)
        if split_file(self.path, "val") is None:
            raise ValueError(
                f"{source.name}: no validation split, which training needs; set {self.options.named('val_share')} to "
                "the share to draw, or give one"
            )
        super().prepare_data()

    def _key(self, source: Source) -> str:
        taxonomy = self.options.taxonomy or source.taxonomy
        text = (
            Path(taxonomy).expanduser().read_bytes().hex() if taxonomy and Path(taxonomy).expanduser().is_file() else ""
        )
        options = replace(self.options, taxonomy=None).content()
        return digest([_VERSION, source.name, source.digest(), options, text])[:24]
