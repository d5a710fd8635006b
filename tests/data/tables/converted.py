"""Tables written and converted."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd

from ptmt_lightning.data.tables.convert import convert
from ptmt_lightning.data.tables.options import TableOptions
from ptmt_lightning.data.tables.sources import source_of

WHOLE = {"val_share": 0.0, "test_share": 0.0}  # all documents to train on


def written(folder: Path, name: str, content: str | bytes) -> Path:
    """A file, packed if its name says so."""
    data = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder / name


def convert_table(table: Path | pd.DataFrame, target: Path, **options: Any) -> list[str]:
    """What is said of the conversion into the folder ``target``."""
    settings = TableOptions(**options)
    return convert(source_of(table if isinstance(table, pd.DataFrame) else str(table), settings), settings, target)


def documents(folder: Path) -> dict[str, list[tuple[str, list[list[str]]]]]:
    """Text and labels of each document by split."""
    found = {}
    for split in ("train", "val", "test"):
        path = folder / f"{split}.jsonl"
        records = [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []
        found[split] = [(record["text"], record["labels"]) for record in records]
    return found


def rows(tmp_path: Path, table: Path | pd.DataFrame, **options: Any) -> list[tuple[str, list[list[str]]]]:
    """Text and labels of all documents of a table, undivided."""
    target = tmp_path / f"converted{len(list(tmp_path.glob('converted*')))}"
    convert_table(table, target, **WHOLE | options)
    return documents(target)["train"]
