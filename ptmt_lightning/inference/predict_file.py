"""Prediction of whole files: streams texts to label paths in constant memory, and can continue after an interruption.

A row that can't be read is set aside with its number and what is wrong with it; the other rows are predicted. Rows that
are done are kept in the folder ``OUTPUT.part`` until all of them are.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
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
from ptmt_lightning.utils.files import read_json_object, write_json

log = logging.getLogger(__name__)

_CHUNK, _CHUNK_CHARACTERS = 1024, 2**25  # rows after which the state is written to disk, fewer if they are long


class Counts(NamedTuple):
    """How many rows of the input were predicted, and how many were rejected."""

    predicted: int
    rejected: int


def check_files(source: str, target: str, *, input_format: str | None = None, overwrite: bool = False) -> None:
    """Refuse files that can't be read or written, before a model is loaded.

    The arguments are those of :func:`predict_file`.

    Raises:
        ValueError: a format is unknown or does not go with its file, the input does not exist, or the output does.
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
    for written in (path, _rejected(path), *_part(path).glob("*")):
        if written.exists() and _is_same_file(written, source):
            raise ValueError(f"{written} is the input itself; give another output")
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
    """Predict every row of the file ``source``, and write the label paths to the file ``target``.

    Rows that can't be predicted are written to ``target.rejected.jsonl``. The same call after an interruption continues
    with the first row that is not done.

    Args:
        classifier: the model.
        source: ``.txt`` (a text a line), ``.csv`` (with a header), ``.jsonl``, each also ``.gz``; ``.parquet``; or
            ``-`` for standard input.
        target: ``.jsonl``, ``.csv`` (either also ``.gz``), ``.parquet``; or ``-`` for JSON lines to standard output,
            with a warning about each rejected row.
        input_format: format of ``source``; None to tell it by the file's name.
        text_column: column, or key, that holds the text; one named ``id`` is passed on.
        overwrite: replace ``target`` if it exists.
        batch_size: number of texts in a batch.
        options: further options of :meth:`~ptmt_lightning.inference.Classifier.predict`.

    Returns:
        How many rows were predicted, and how many were rejected, in all.

    Raises:
        ValueError: :func:`check_files` refuses a file; an option is not valid; the text column is missing; ``target``
            was begun with other settings, or another process is writing it; the input ends early or is damaged.
    """
    check_files(source, target, input_format=input_format, overwrite=overwrite)
    options = {name: value for name, value in options.items() if value is not None} | {"batch_size": batch_size}
    classifier.predict([], **options)  # refuses options that are not valid
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
                shutil.rmtree(part)  # no row is done from which to continue
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
    """Yield the records of predicted rows and those of rejected rows, a chunk of the input at a time."""
    while chunk := _chunk(rows):
        good = [row for row in chunk if row.error is None]
        predictions = classifier.predict(iter([row.text for row in good]), **options)
        records = [_record(row, prediction) for row, prediction in zip(good, predictions, strict=True)]
        yield records, [_reject(row) for row in chunk if row.error is not None]


def _chunk(rows: Iterator[Row]) -> list[Row]:
    """Return the next rows, no more than are to be held in memory at once; none at the end."""
    chunk: list[Row] = []
    size = 0
    while len(chunk) < _CHUNK and size < _CHUNK_CHARACTERS and (row := next(rows, None)) is not None:
        chunk.append(row)
        size += len(row.text)
    return chunk


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
    """Predict the rows that are not done yet into the files of ``part``; keep ``state`` up to date, also on disk."""
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


def _is_same_file(path: Path, source: str) -> bool:
    if source != "-":
        return path.samefile(source)
    try:
        return os.path.samestat(path.stat(), os.fstat(sys.stdin.fileno()))
    except io.UnsupportedOperation:  # a program has put its own stream in place of standard input
        return False


def _rejected(path: Path) -> Path:
    return path.with_name(f"{path.name}.rejected.jsonl")


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


_OWN = re.compile(r"lock|state\.json|\.state\.json\..*|predicted\.jsonl|rejected\.jsonl|made\..*")  # files of a part


@contextmanager
def _locked(part: Path, path: Path) -> Iterator[None]:
    """Keep other processes from writing the same output within this block; the lock ends with the process.

    Raises:
        ValueError: another process is writing it.
    """
    foreign = [path for path in part.glob("*") if path.is_dir() or not _OWN.fullmatch(path.name)]
    if part.is_file() or foreign:
        raise ValueError(
            f"{foreign[0] if foreign else part} is not of ptmt predict, which needs that place; give another output"
        )
    part.mkdir(parents=True, exist_ok=True)
    with (part / "lock").open("w", encoding="utf-8") as file:
        if not lock_descriptor(file.fileno(), blocking=False):
            raise ValueError(f"another process is writing {path}; wait for it, or give another output")
        yield


def _is_finished(part: Path) -> bool:
    """Return whether all rows are done, so that only :func:`_finish` is left."""
    return (part / "state.json").exists() and bool(_read_state(part).get("finished"))


def _begin(part: Path, settings: dict[str, Any], *, resumable: bool) -> dict[str, Any]:
    """Return the state to continue from, or a new one with empty files.

    Raises:
        ValueError: rows were done with other settings, or from a standard input, which can't be read again.
    """
    settings = json.loads(json.dumps(settings))  # the types that it will have when it is read
    if (part / "state.json").exists():
        state = _read_state(part)
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


def _read_state(part: Path) -> dict[str, Any]:
    state = read_json_object(part / "state.json", "delete the folder to start anew")
    counts = ("predicted", "rejected", "predicted_bytes", "rejected_bytes")
    if not isinstance(state.get("settings"), dict) or not all(isinstance(state.get(name), int) for name in counts):
        raise ValueError(
            f"{part / 'state.json'}: not of rows that ptmt predict has done; delete the folder to start anew"
        )
    return state


def _finish(part: Path, path: Path) -> None:
    """Turn the folder into the output and the file of rejected rows, if any; an interrupted call can be repeated."""
    lines, rejected = part / "predicted.jsonl", _rejected(path)
    if (part / "rejected.jsonl").exists():
        if (part / "rejected.jsonl").stat().st_size:
            (part / "rejected.jsonl").replace(rejected)
        else:
            rejected.unlink(missing_ok=True)  # may be left from an output that is overwritten
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
    """Return a text that changes when one of the files changes, by their names, sizes and times."""
    states = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()[:16]
