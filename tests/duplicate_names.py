"""Data whose taxonomy has 20 labels with names that others have, too, and documents without a label."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

from ptmt_lightning.taxonomy import Taxonomy

TOPS, BELOW = ("Laptop", "Phone", "Camera", "Other"), ("Battery", "Screen", "Price", "Other", "C++ & C#")
PATHS = [*product(TOPS, BELOW), ("Laptop", "Battery", "Cells"), ("Phone", "Battery", "Other")]
TAXONOMY = Taxonomy.from_paths(PATHS)


def documents() -> list[dict[str, object]]:
    """One with each path, some with two paths, and some with none."""
    one = [{"text": " ".join(f"{name} {level}" for level, name in enumerate(path)), "labels": [path]} for path in PATHS]
    two = [{"text": f"{a['text']} {b['text']}", "labels": [*a["labels"], *b["labels"]]} for a, b in zip(one, one[7:])]  # type: ignore[misc]  # noqa: B905
    return [*one, *two[:6], {"text": "weather", "labels": []}, {"text": "the weather of today", "labels": []}]


def write_data(folder: Path, *, with_taxonomy: bool = True) -> Path:
    """A data folder whose splits are all alike; with whole paths in ``taxonomy.tsv``, or without that file."""
    folder.mkdir(parents=True)
    if with_taxonomy:
        TAXONOMY.to_tsv(folder / "taxonomy.tsv")
    for split in ("train", "val", "test"):
        lines = [json.dumps(document) + "\n" for document in documents()]
        (folder / f"{split}.jsonl").write_text("".join(lines))
    return folder
