"""The toy texts as files to predict, and predictions read again."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
from conftest import TOY_DOCUMENTS

TEXTS = [document["text"] for document in TOY_DOCUMENTS]


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(folder: Path, name: str) -> Path:
    """The toy texts in the form that the name says."""
    path = folder / name
    table = pd.DataFrame({"id": [f"d{i}" for i in range(len(TEXTS))], "more": "x", "text": TEXTS})
    match name.removesuffix(".gz").split(".")[1]:
        case "parquet":
            table.to_parquet(path)
        case "csv":
            table.to_csv(path, index=False)
        case "jsonl":
            table.to_json(path, orient="records", lines=True)
        case "txt":
            content = "".join(f"{text}\n" for text in TEXTS).encode()
            path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path
