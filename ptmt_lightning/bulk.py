"""Files of texts in, a file of label paths out: streamed, in constant memory, and gone on with where it was cut off.

A row that can't be read is kept apart with its number and what is wrong with it; the rest goes on. What is done is
kept in the folder ``OUTPUT.part`` until all is.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import logging
import os
import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ptmt_lightning.files import write_json
from ptmt_lightning.inference import Classifier, Prediction

log = logging.getLogger(__name__)

INPUT_FORMATS = ("txt", "csv", "jsonl", "parquet")
OUTPUT_FORMATS = ("jsonl", "csv", "parquet")
_CHUNK = 1024  # rows, after which what is done is safe
_SCHEMA = pa.schema(
    {
        "row": pa.int64(),
        "id": pa.string(),
        "predicted": pa.list_(
            pa.struct({"path": pa.list_(pa.string()), "probabilities": pa.list_(pa.float64())})
        ),
    }
)  # fmt: skip


class Row(NamedTuple):
    """A row of the input, with a text or with what is wrong."""

    number: int  # from 1
    id: str | None
    text: str
    error: str | None = None


class Counts(NamedTuple):
    """Rows of the input."""

    predicted: int
    rejected: int


def predict_file(
    classifier: Classifier,
    source: str,
    target: str,
    *,
    settings: Mapping[str, Any],
    input_format: str | None = None,
    text_column: str = "text",
    overwrite: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Counts:
    """Predict every row of ``source`` into ``target``.

    Rows that can't be predicted go to ``target.rejected.jsonl``.

    Args:
        source: ``.txt`` (a text a line), ``.csv`` (with a header), ``.jsonl``, each also ``.gz``; ``.parquet``; or
            ``-`` for standard input.
        target: ``.jsonl``, ``.csv`` (either also ``.gz``), ``.parquet``; or ``-`` for JSON lines to standard output,
            with rejected rows to standard error.
        settings: what a half-finished ``target`` must have been begun with to be gone on with.
        input_format: of ``source``, where its name doesn't say.
        text_column: column, or key, that holds the text; one named ``id`` is passed on.
        overwrite: replace ``target``.
        options: of :meth:`~ptmt_lightning.inference.Classifier.predict`.

    Raises:
        ValueError: a format that is not known, a column that is not there, a ``target`` that exists, or that was begun
            with other settings; an input that ends early.
    """
    input_format = _format(source, input_format, INPUT_FORMATS, "input")
    rows = read_rows(source, input_format, text_column)
    if target == "-":
        return _to_stdout(classifier, rows, options or {})
    kind = _format(target, None, OUTPUT_FORMATS, "output")
    path = Path(target)
    if path.exists() and not overwrite:
        raise ValueError(f"{target} is there already; give another output, or --overwrite")
    settings = {**settings, "source": _fingerprint(source), "text_column": text_column, "options": dict(options or {})}
    part = path.with_name(f"{path.name}.part")
    counts = _predict_into(classifier, rows, part, settings, options or {}, resumable=source != "-")
    _finish(part, path, kind)
    return counts


# ---- input ----


def read_rows(source: str, input_format: str | None = None, text_column: str = "text") -> Iterator[Row]:
    """The rows of a file, see :func:`predict_file`."""
    kind = _format(source, input_format, INPUT_FORMATS, "input")
    if kind == "parquet":
        yield from _parquet_rows(source, text_column)
        return
    try:
        with _opened(source) as file:
            if kind == "csv":
                yield from _csv_rows(file, source, text_column)
                return
            for number, line in enumerate(file, start=1):
                line = line.removesuffix("\n").removesuffix("\r")
                yield Row(number, None, *_checked(line)) if kind == "txt" else _json_row(number, line, text_column)
    except (EOFError, zlib.error) as error:
        raise ValueError(f"{source}: the file ends early or is damaged ({error}); get it anew") from error


def _parquet_rows(source: str, text_column: str) -> Iterator[Row]:
    file = pq.ParquetFile(sys.stdin.buffer if source == "-" else source)
    names = file.schema_arrow.names
    _check_column(source, names, text_column)
    columns = [name for name in ("id", text_column) if name in names]
    number = 0
    for batch in file.iter_batches(_CHUNK, columns=columns):
        for record in batch.to_pylist():
            number += 1
            yield Row(number, _id(record), *_checked(record[text_column]))


def _csv_rows(file: TextIO, source: str, text_column: str) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(file, strict=True)
    names = next(reader, [])
    _check_column(source, names, text_column)
    for number in itertools.count(1):
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(number, None, "", f"invalid CSV on line {reader.line_num}: {error}")
            continue
        if len(fields) != len(names):
            wrong = f"expected {len(names)} fields as in the header, got {len(fields)}"
            yield Row(number, None, ",".join(fields), wrong)
        else:
            record = dict(zip(names, fields, strict=True))
            yield Row(number, _id(record), *_checked(record[text_column]))


def _json_row(number: int, line: str, text_column: str) -> Row:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Row(number, None, line, f"invalid JSON: {error}")
    if not isinstance(record, dict) or text_column not in record:
        return Row(number, None, line, f"expected an object with the key {text_column!r}")
    return Row(number, _id(record), *_checked(record[text_column]))


def _checked(text: Any) -> tuple[str, str | None]:
    """A text, and what is wrong with it."""
    if not isinstance(text, str):
        return repr(text), f"the text is {type(text).__name__} {text!r}, expected a string"
    if not text.strip():
        return text, "the text is empty"
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode(), "the text is not valid UTF-8"
    return text, None


def _id(record: Mapping[str, Any]) -> str | None:
    return None if record.get("id") is None else str(record["id"])


def _check_column(source: str, names: list[str], text_column: str) -> None:
    if text_column not in names:
        raise ValueError(
            f"{source}: no column {text_column!r}; it has {', '.join(map(repr, names))}; set --text-column"
        )


@contextmanager
def _opened(source: str) -> Iterator[TextIO]:
    with nullcontext(sys.stdin.buffer) if source == "-" else Path(source).open("rb") as binary:
        plain = gzip.GzipFile(fileobj=binary) if source.endswith(".gz") else binary
        # What is not UTF-8 is found row by row.
        yield io.TextIOWrapper(plain, encoding="utf-8-sig", errors="surrogateescape", newline="\n")


def _format(name: str, given: str | None, known: tuple[str, ...], side: str) -> str:
    kind = given or Path(name.removesuffix(".gz")).suffix.removeprefix(".")
    if name == "-" and given is None:
        kind = "txt"
    if kind not in known:
        hint = " or set --input-format" if side == "input" else ""
        raise ValueError(f"{name}: unknown {side} format {kind!r}; expected {', '.join(known)}; rename it{hint}")
    return kind


# ---- output ----


def _record(row: Row, prediction: Prediction) -> dict[str, Any]:
    paths = [{"path": list(path.labels), "probabilities": list(path.probabilities)} for path in prediction]
    return {"row": row.number} | ({} if row.id is None else {"id": row.id}) | {"predicted": paths}


def _reject(row: Row) -> dict[str, Any]:
    return {"row": row.number, "error": row.error, "content": row.text}


def _chunks(
    classifier: Classifier, rows: Iterator[Row], options: Mapping[str, Any]
) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]]]]:
    """Records and rejected rows, a chunk of the input at a time."""
    while chunk := list(islice(rows, _CHUNK)):
        good = [row for row in chunk if row.error is None]
        predictions = classifier.predict(iter([row.text for row in good]), **options)
        records = [_record(row, prediction) for row, prediction in zip(good, predictions, strict=True)]
        yield records, [_reject(row) for row in chunk if row.error is not None]


def _to_stdout(classifier: Classifier, rows: Iterator[Row], options: Mapping[str, Any]) -> Counts:
    predicted = rejected = 0
    for records, rejects in _chunks(classifier, rows, options):
        for record in records:
            print(_line(record), end="")
        for reject in rejects:
            log.warning("row %d left out: %s", reject["row"], reject["error"])
        sys.stdout.flush()
        predicted, rejected = predicted + len(records), rejected + len(rejects)
    return Counts(predicted, rejected)


def _predict_into(
    classifier: Classifier,
    rows: Iterator[Row],
    part: Path,
    settings: dict[str, Any],
    options: Mapping[str, Any],
    *,
    resumable: bool,
) -> Counts:
    state = _begin(part, settings, resumable=resumable)
    rows_done = state["predicted"] + state["rejected"]
    if rows_done:
        log.info("going on after row %d", rows_done)
        for _ in islice(rows, rows_done):
            pass
    with (
        (part / "predictions.jsonl").open("r+b") as predictions,
        (part / "rejected.jsonl").open("r+b") as rejected,
        tqdm(initial=rows_done, unit=" rows", disable=None) as bar,
    ):
        for file, name in ((predictions, "predictions_bytes"), (rejected, "rejected_bytes")):
            file.truncate(state[name])
            file.seek(state[name])
        for records, rejects in _chunks(classifier, rows, options):
            for file, lines in ((predictions, records), (rejected, rejects)):
                file.writelines(_line(line).encode() for line in lines)
                file.flush()
                os.fsync(file.fileno())
            state["predicted"] += len(records)
            state["rejected"] += len(rejects)
            state["predictions_bytes"], state["rejected_bytes"] = predictions.tell(), rejected.tell()
            write_json(part / "state.json", state)
            bar.update(len(records) + len(rejects))
    return Counts(state["predicted"], state["rejected"])


def _begin(part: Path, settings: dict[str, Any], *, resumable: bool) -> dict[str, Any]:
    """The state to go on from, with its files."""
    settings = json.loads(json.dumps(settings))  # as it will be read
    if (part / "state.json").exists() and resumable:
        state: dict[str, Any] = json.loads((part / "state.json").read_text(encoding="utf-8"))
        if state["settings"] == settings:
            return state
        changed = [name for name in settings if state["settings"].get(name) != settings[name]]
        raise ValueError(
            f"{part} was begun with another {', '.join(changed)}; delete it to start anew, or give another output"
        )
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name in ("predictions.jsonl", "rejected.jsonl"):
        (part / name).touch()
    state = {"settings": settings, "predicted": 0, "rejected": 0, "predictions_bytes": 0, "rejected_bytes": 0}
    write_json(part / "state.json", state)
    return state


def _finish(part: Path, path: Path, kind: str) -> None:
    """Turn the folder into the output and, where there are any, the rejected rows."""
    lines = part / "predictions.jsonl"
    made = part / path.name
    if kind == "parquet":
        _write_parquet(lines, made)
    elif kind == "csv" or path.suffix == ".gz":
        _write_text(lines, made, kind)
    else:
        made = lines
    rejected = path.with_name(f"{path.name}.rejected.jsonl")
    if (part / "rejected.jsonl").stat().st_size:
        (part / "rejected.jsonl").replace(rejected)
    else:
        rejected.unlink(missing_ok=True)  # of an output that is overwritten
    made.replace(path)
    shutil.rmtree(part)


def _write_text(lines: Path, made: Path, kind: str) -> None:
    opener = gzip.open if made.suffix == ".gz" else open
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
        while chunk := [json.loads(line) for line in islice(source, 10 * _CHUNK)]:
            writer.write_table(pa.Table.from_pylist(chunk, schema=_SCHEMA))


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _fingerprint(source: str) -> list[Any]:
    """Changes when the file does."""
    if source == "-":
        return ["-"]
    status = Path(source).stat()
    return [str(Path(source).resolve()), status.st_size, status.st_mtime_ns]
