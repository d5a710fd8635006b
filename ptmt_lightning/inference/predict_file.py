"""Files of texts in, a file of label paths out: streamed, in constant memory, and gone on with where it was cut off.

A row that can't be read is kept apart with its number and what is wrong with it; the rest goes on. What is done is
kept in the folder ``OUTPUT.part`` until all is.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from filelock import lock_descriptor
from tqdm import tqdm

from ptmt_lightning.inference.classifier import Classifier, Prediction
from ptmt_lightning.inference.output_files import convert_lines, json_line, output_format
from ptmt_lightning.inference.text_files import INPUT_FORMATS, Row, format_of, read_rows
from ptmt_lightning.utils.files import write_json

log = logging.getLogger(__name__)

_CHUNK = 1024  # rows, after which what is done is safe


class Counts(NamedTuple):
    """Rows of the input."""

    predicted: int
    rejected: int


def check_files(source: str, target: str, *, input_format: str | None = None, overwrite: bool = False) -> None:
    """Refuse what can't be read or written, before a model is loaded.

    Raises:
        ValueError: a format that is not known, an input that is not there, an output that is.
    """
    kind = format_of(source, input_format, INPUT_FORMATS, "input")
    if source == "-" and kind == "parquet":
        raise ValueError("standard input can't be parquet, which is not read from front to back; give its file")
    if source != "-" and not Path(source).is_file():
        raise ValueError(f"{source}: no such file")
    if target == "-":
        return
    if output_format(target) == "parquet" and target.endswith(".gz"):
        raise ValueError(f"{target}: parquet is compressed in itself; leave out .gz")
    path = Path(target)
    if path.is_dir():
        raise ValueError(f"{target} is a folder; give a file")
    if path.exists() and not overwrite and not _is_finished(_part(path)):
        raise ValueError(f"{target} is there already; give another output, or --overwrite")


def predict_file(
    classifier: Classifier,
    source: str,
    target: str,
    *,
    input_format: str | None = None,
    text_column: str = "text",
    overwrite: bool = False,
    batch_size: int = 32,
    **options: Any,
) -> Counts:
    """Predict every row of ``source`` into ``target``.

    Rows that can't be predicted go to ``target.rejected.jsonl``. Started again after it was cut off, it goes on.

    Args:
        source: ``.txt`` (a text a line), ``.csv`` (with a header), ``.jsonl``, each also ``.gz``; ``.parquet``; or
            ``-`` for standard input.
        target: ``.jsonl``, ``.csv`` (either also ``.gz``), ``.parquet``; or ``-`` for JSON lines to standard output,
            with rejected rows to standard error.
        input_format: of ``source``, where its name doesn't say.
        text_column: column, or key, that holds the text; one named ``id`` is passed on.
        overwrite: replace ``target``.
        batch_size, options: of :meth:`~ptmt_lightning.inference.Classifier.predict`.

    Raises:
        ValueError: what :func:`check_files` refuses; a column that is not there; a ``target`` that was begun with
            other settings, or that another process is writing; an input that ends early.
    """
    check_files(source, target, input_format=input_format, overwrite=overwrite)
    options = {name: value for name, value in options.items() if value is not None} | {"batch_size": batch_size}
    classifier.predict([], **options)  # refuses bad ones
    rows = read_rows(source, input_format, text_column)
    if target == "-":
        return _to_stdout(classifier, rows, options)
    path = Path(target)
    part = _part(path)
    settings = {
        "model": _fingerprint(sorted(classifier.folder.path.iterdir())),
        "precision": classifier.precision,
        "input": _fingerprint([Path(source)]) if source != "-" else None,
        "input_format": format_of(source, input_format, INPUT_FORMATS, "input"),
        "text_column": text_column,
        **{name: value for name, value in options.items() if name != "batch_size"},
    }
    with _locked(part, path):
        state = _begin(part, settings, resumable=source != "-")
        try:
            if not state["finished"]:
                _predict_into(classifier, rows, part, state, options)
            _finish(part, path)
        finally:
            if not state["finished"] and state["predicted"] + state["rejected"] == 0:
                shutil.rmtree(part)  # nothing to go on from
    return Counts(state["predicted"], state["rejected"])


def _record(row: Row, prediction: Prediction) -> dict[str, Any]:
    return _named(row) | {"predicted": [path.to_json() for path in prediction]}


def _reject(row: Row) -> dict[str, Any]:
    return _named(row) | {"error": row.error, "content": row.text}


def _named(row: Row) -> dict[str, Any]:
    return {"row": row.number} | ({} if row.id is None else {"id": row.id})


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
        sys.stdout.buffer.writelines(map(json_line, records))
        sys.stdout.buffer.flush()
        for reject in rejects:
            log.warning("row %d left out: %s", reject["row"], reject["error"])
        predicted, rejected = predicted + len(records), rejected + len(rejects)
    return Counts(predicted, rejected)


def _predict_into(
    classifier: Classifier, rows: Iterator[Row], part: Path, state: dict[str, Any], options: Mapping[str, Any]
) -> None:
    """Go on with the folder's files until the input ends; ``state`` follows, in memory and on disk."""
    rows_done = state["predicted"] + state["rejected"]
    if rows_done:
        log.info("going on after %d rows", rows_done)
        for _ in islice(rows, rows_done):
            pass
    with ExitStack() as stack:
        files = {name: stack.enter_context((part / f"{name}.jsonl").open("r+b")) for name in ("predicted", "rejected")}
        bar = stack.enter_context(tqdm(initial=rows_done, unit=" rows", disable=None))
        for name, file in files.items():
            file.truncate(state[f"{name}_bytes"])
            file.seek(state[f"{name}_bytes"])
        for chunk in _chunks(classifier, rows, options):
            for (name, file), records in zip(files.items(), chunk, strict=True):
                file.writelines(map(json_line, records))
                file.flush()
                os.fsync(file.fileno())
                state[name] += len(records)
                state[f"{name}_bytes"] = file.tell()
            write_json(part / "state.json", state)
            bar.update(sum(map(len, chunk)))
    state["finished"] = True
    write_json(part / "state.json", state)


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


@contextmanager
def _locked(part: Path, path: Path) -> Iterator[None]:
    """One process at a time; the lock ends with the process."""
    part.mkdir(parents=True, exist_ok=True)
    with (part / "lock").open("w") as file:
        if not lock_descriptor(file.fileno(), blocking=False):
            raise ValueError(f"another process is writing {path}; wait for it, or give another output")
        yield


def _is_finished(part: Path) -> bool:
    """Whether only what :func:`_finish` does is left."""
    return (part / "state.json").exists() and bool(json.loads((part / "state.json").read_text())["finished"])


def _begin(part: Path, settings: dict[str, Any], *, resumable: bool) -> dict[str, Any]:
    """The state to go on from, with its files."""
    settings = json.loads(json.dumps(settings))  # as it will be read
    if (part / "state.json").exists():
        state: dict[str, Any] = json.loads((part / "state.json").read_text(encoding="utf-8"))
        if state["settings"] == settings and resumable:
            return state
        if state["predicted"] + state["rejected"]:
            names = settings.keys() | state["settings"].keys()
            changed = sorted(name for name in names if state["settings"].get(name) != settings.get(name))
            raise ValueError(
                f"{part} was begun with another {', '.join(changed) or 'standard input'}; delete it to start anew, or "
                "give another output"
            )
    for name in ("predicted.jsonl", "rejected.jsonl"):
        (part / name).write_bytes(b"")
    state = {"settings": settings, "finished": False} | dict.fromkeys(
        ("predicted", "rejected", "predicted_bytes", "rejected_bytes"), 0
    )
    write_json(part / "state.json", state)
    return state


def _finish(part: Path, path: Path) -> None:
    """Turn the folder into the output and, where there are any, the rejected rows; may be cut off anywhere."""
    lines, rejected = part / "predicted.jsonl", path.with_name(f"{path.name}.rejected.jsonl")
    if (part / "rejected.jsonl").exists():
        if (part / "rejected.jsonl").stat().st_size:
            (part / "rejected.jsonl").replace(rejected)
        else:
            rejected.unlink(missing_ok=True)  # of an output that is overwritten
            (part / "rejected.jsonl").unlink()
    if lines.exists():
        made = part / f"made{''.join(path.suffixes[-2:])}"
        if output_format(path.name) == "jsonl" and path.suffix.lower() != ".gz":
            made = lines
        else:
            convert_lines(lines, made)
        made.replace(path)
        lines.unlink(missing_ok=True)
    (part / "state.json").unlink()
    shutil.rmtree(part)


def _fingerprint(files: Sequence[Path]) -> str:
    """Changes when one of the files does."""
    states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()[:16]
