"""Predictions as files: JSON lines, and from those CSV and Parquet."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ptmt_lightning.inference.text_files import format_of
from ptmt_lightning.utils.tokens import is_unicode

OUTPUT_FORMATS = ("jsonl", "csv", "parquet")
_ROW_GROUP = 10_240  # rows of a Parquet file that are in memory at a time
_SCHEMA = pa.schema(
    {
        "row": pa.int64(),
        "id": pa.string(),
        "predicted": pa.list_(pa.struct({"path": pa.list_(pa.string()), "probabilities": pa.list_(pa.float64())})),
    }
)


def json_line(record: Mapping[str, Any]) -> bytes:
    """Return a record as a line of UTF-8; half a surrogate pair is escaped."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    return (text if is_unicode(text) else json.dumps(record)).encode() + b"\n"


def convert_lines(lines: Path, target: Path) -> None:
    """Write the predictions of a file of JSON lines in the form that the name of ``target`` says."""
    kind = format_of(target.name, None, OUTPUT_FORMATS, "output")
    if kind == "parquet":
        _write_parquet(lines, target)
    else:
        _write_text(lines, target, kind, zipped=target.suffix.lower() == ".gz")


def _write_text(lines: Path, made: Path, kind: str, *, zipped: bool) -> None:
    opener = gzip.open if zipped else open
    with opener(made, "wt", encoding="utf-8", newline="") as file, lines.open(encoding="utf-8") as source:
        if kind == "jsonl":
            file.writelines(source)
            return
        writer = csv.writer(file)
        writer.writerow(["row", "id", "labels", "probabilities"])
        for record in map(json.loads, source):
            paths = record["predicted"]
            labels = "; ".join(" > ".join(path["path"]) for path in paths)
            probabilities = "; ".join(" > ".join(map(str, path["probabilities"])) for path in paths)
            writer.writerow([record["row"], record.get("id", ""), labels, probabilities])


def _write_parquet(lines: Path, made: Path) -> None:
    with pq.ParquetWriter(made, _SCHEMA) as writer, lines.open(encoding="utf-8") as source:
        while chunk := [json.loads(line) for line in islice(source, _ROW_GROUP)]:
            writer.write_table(pa.Table.from_pylist(chunk, schema=_SCHEMA))
