"""Documents, and the JSON-lines files that hold them.

Each line is one document: ``{"text": "...", "labels": [["level-1 node", "level-2 node", ...], ...]}``. A label is a
path that starts at a top node; a document may have none; other keys are ignored. A split is the file
``{train,val,test}.jsonl`` or ``.jsonl.gz``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard
from unicodedata import normalize

import numpy as np
import numpy.typing as npt

from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.files import problem_of_name
from ptmt_lightning.utils.checks import shortened
from ptmt_lightning.utils.lines import open_lines, problem_of

SPLITS = ("train", "val", "test")
_FORMAT = '{"text": "...", "labels": [["level-1 node", "level-2 node"], ...]}'


@dataclass(frozen=True, slots=True)
class Document:
    """A text and the nodes on its label paths."""

    id: str  # "<split>:<line number>"
    text: str
    nodes: tuple[int, ...]  # sorted; none where nothing in the taxonomy fits the text


class Example(NamedTuple):
    """One tokenised document, as a collator receives it."""

    row: int  # index in its split
    epoch: int  # lets a collator draw other masks in each epoch, whichever worker runs it
    input_ids: npt.NDArray[np.int32]  # of the text, without special tokens
    nodes: npt.NDArray[np.int32]


def split_file(folder: Path, split: str) -> Path | None:
    """Return the file of a split, or None if ``folder`` has none.

    Raises:
        ValueError: both the plain and the compressed file are there.
    """
    names = (folder / f"{split}.jsonl", folder / f"{split}.jsonl.gz")
    found = [path for path in names if path.exists() or path.is_symlink()]  # what can't be read is told when it is
    if len(found) > 1:
        raise ValueError(f"{folder}: both {found[0].name} and {found[1].name} are there; delete one of the two")
    return found[0] if found else None


def read_documents(path: Path, split: str, taxonomy: Taxonomy) -> Iterator[Document]:
    """Yield the documents of one split; skip blank lines.

    Raises:
        ValueError: the file holds no document, or none with a label, or a line is not a valid one; the message names
            file, line and key.
    """
    empty = unlabelled = True
    for number, where, record in read_records(path):
        nodes = _checked_nodes(record, taxonomy, where)
        empty, unlabelled = False, unlabelled and not nodes
        yield Document(f"{split}:{number}", record["text"], tuple(nodes))
    if empty:
        raise ValueError(f"{path}: the {split} split holds no document; expected one a line: {_FORMAT}")
    if unlabelled:
        raise ValueError(
            f"{path}: labels=[] in all documents of the {split} split; expected a label path in at least one of them; "
            "add the labels"
        )


def read_label_paths(path: Path) -> Iterator[tuple[str, ...]]:
    """Yield the label paths of all documents of a file, in Unicode's form NFC.

    Raises:
        ValueError: a line is not a valid document, or a label can't name a node; the message names file, line and key.
    """
    for _, where, record in read_records(path):
        for names in _checked_paths(record, where):
            label_path = tuple(normalize("NFC", name) for name in names)
            for level, name in enumerate(label_path, start=1):
                if problem := problem_of_name(name):
                    raise ValueError(f"{where}: labels: level {level}, {shortened(name)!r}: {problem}")
            yield label_path


def read_records(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield number, place (``path:line``) and content of each line that is not blank.

    The text of the content is checked; of its ``labels`` only that they are there.

    Raises:
        ValueError: a line is not such a document, or the file is damaged; the message names file and line.
    """
    for number, (where, line) in enumerate(read_lines(path), start=1):
        if line.strip():
            record = _parse(line, where)
            _check_text(record, where)
            yield number, where, record


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield place (``path:line``) and content, line break included, of each line of a text file, plain or gzip.

    Raises:
        ValueError: a line is not UTF-8 or too long, or the file is damaged; the message names file and line.
    """
    with open_lines(path) as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{path}:{number}"
            if lines.is_cut(line):
                raise ValueError(f"{where}: more than {len(line) - 1:,} characters; shorten or delete the line")
            if problem := problem_of(line):
                raise ValueError(f"{where}: {problem}")
            yield where, line


def parse_json(line: str, where: str, remedy: str) -> Any:
    """Return what a line of JSON says.

    Args:
        line: the line.
        where: file and number of the line, for the error message.
        remedy: what the user is to do about a line that is no JSON.

    Raises:
        ValueError: the line is no JSON, nested too deeply, has a number of too many digits, or a key twice.
    """
    try:
        return json.loads(line.rstrip(), object_pairs_hook=with_unique_keys)
    except (ValueError, RecursionError) as error:
        problem = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
        raise ValueError(f"{where}: invalid JSON ({problem}); {remedy}") from None


def with_unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of a JSON object as a dictionary; json would keep the last of several values without a word.

    Raises:
        ValueError: a key is there twice.
    """
    record = dict(pairs)
    if len(record) < len(pairs):
        key = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"key {shortened(key)!r} is there twice")
    return record


def _parse(line: str, where: str) -> dict[str, Any]:
    record = parse_json(line, where, f"expected {_FORMAT}")
    if not isinstance(record, dict):
        raise ValueError(f"{where}: expected a JSON object {_FORMAT}, got {type(record).__name__}")
    for key in ("text", "labels"):
        if key not in record:
            raise ValueError(f"{where}: no key {key!r}, found {shortened(sorted(record))}; expected {_FORMAT}")
    return record


def _check_text(record: dict[str, Any], where: str) -> None:
    text = record["text"]
    if not isinstance(text, str):
        raise ValueError(f"{where}: text={_shown(text)}: expected a string; convert it or delete the line")
    if not text.strip():
        raise ValueError(f"{where}: text={_shown(text)}: expected more than white space; fill it in or delete the line")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: text={json.dumps(text[error.start : error.end])} at character {error.start + 1}: half of a "
            "surrogate pair is not a character; correct it or delete the line"
        ) from None


def _checked_nodes(record: dict[str, Any], taxonomy: Taxonomy, where: str) -> list[int]:
    paths = _checked_paths(record, where)
    try:
        return taxonomy.encode(paths)
    except ValueError as error:
        raise ValueError(f"{where}: labels: {error}; correct the labels or add the edge to the taxonomy") from None


def _checked_paths(record: dict[str, Any], where: str) -> list[list[str]]:
    labels = record["labels"]
    if not _is_paths(labels):
        raise ValueError(
            f"{where}: labels={_shown(labels)}: expected a list of label paths, each a non-empty list of strings, "
            'such as [["level-1 node", "level-2 node"]]'
        )
    return labels


def _is_paths(labels: object) -> TypeGuard[list[list[str]]]:
    return isinstance(labels, list) and all(
        isinstance(path, list) and path and all(isinstance(name, str) for name in path) for path in labels
    )


def _shown(value: object) -> str:
    return shortened(json.dumps(value, ensure_ascii=False), 60)
