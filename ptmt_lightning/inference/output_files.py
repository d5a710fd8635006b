"""Writers of prediction files: JSON lines, and CSV and Parquet made from them."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from ptmt_lightning.inference.text_files import format_of
from ptmt_lightning.utils.tables import harmless
from ptmt_lightning.utils.tokens import is_unicode

_ROW_GROUP = 10_240  # number of rows of a Parquet file that are held in memory at a time
_SCHEMA = pa.schema(
    {
        "row": pa.int64(),
        "id": pa.string(),
        "predicted": pa.list_(pa.struct({"path": pa.list_(pa.string()), "probabilities": pa.list_(pa.float64())})),
    }
)


def json_line(record: Mapping[str, Any]) -> bytes:
    """Return a record as a line of JSON in UTF-8; characters are escaped if they include half a surrogate pair."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False)
    return (text if is_unicode(text) else json.dumps(record)).encode() + b"\n"


def convert_lines(lines: Path, target: Path) -> None:
    """Convert a file of JSON lines to the format of ``target``, which its name tells."""
    WRITERS[output_format(target.name)](lines, target)


def output_format(name: str) -> str:
    """Return the format of an output file, such as ``jsonl``, by its name.

    Raises:
        ValueError: no format is known for that name.
    """
    return format_of(name, None, tuple(WRITERS), "output")


def _opened(path: Path) -> TextIO:
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    return cast(TextIO, opener(path, "wt", encoding="utf-8", newline=""))


def _write_jsonl(lines: Path, target: Path) -> None:
    with _opened(target) as file, lines.open(encoding="utf-8") as source:
        file.writelines(source)


def _write_csv(lines: Path, target: Path) -> None:
    with _opened(target) as file, lines.open(encoding="utf-8") as source:
        writer = csv.writer(file)
        writer.writerow(["row", "id", "labels", "probabilities"])
        for record in map(json.loads, source):
            paths = record["predicted"]
            labels = join_paths([path["path"] for path in paths])
            probabilities = join_paths([list(map(str, path["probabilities"])) for path in paths])
            writer.writerow([record["row"], harmless(record.get("id", "")), harmless(labels), probabilities])


def join_paths(paths: Sequence[Sequence[str]]) -> str:
    r"""Return paths as one cell, ``A > B; C``; a backslash stands before ``>``, ``;`` and ``\\`` of a label's own."""
    return "; ".join(" > ".join(re.sub(r"([\\>;])", r"\\\1", label) for label in path) for path in paths)


def _write_parquet(lines: Path, target: Path) -> None:
    with (
        target.open("wb") as file,
        pq.ParquetWriter(file, _SCHEMA) as writer,
        lines.open(encoding="utf-8") as source,
    ):
        while chunk := [json.loads(line) for line in islice(source, _ROW_GROUP)]:
            writer.write_table(pa.Table.from_pylist(chunk, schema=_SCHEMA))


# The function that writes each format, by the ending of the file's name; it takes the paths of a file of JSON lines and
# of the output. To add a format, add a function here.
WRITERS: dict[str, Callable[[Path, Path], None]] = {
    "jsonl": _write_jsonl,
    "csv": _write_csv,
    "parquet": _write_parquet,
}
