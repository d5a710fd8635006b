"""Documents whose labels are a set of topics, in the JSON files of HGCLR, HBGL and HiAGM beside a taxonomy of names.

``<name>_train.json``, ``_val.json`` and ``_test.json`` hold a document a line, ``{"token": ..., "label": [...]}``, and
``<name>.taxonomy`` a parent and its children a line, separated by tabs, from ``Root``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ptmt_lightning.data.benchmarks.base import BenchmarkDataModule
from ptmt_lightning.data.benchmarks.prepared import Labelled
from ptmt_lightning.data.document import SPLITS, parse_json, read_lines
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.edges import ROOT
from ptmt_lightning.utils.checks import shortened

_TEXT_KEYS, _LABEL_KEYS = ("token", "doc_token"), ("label", "doc_label")
_FORM = '{"token": "..." or ["...", ...], "label": ["topic", ...]}'


def json_form(name: str) -> str:
    """Return the names of the files of a data set, for messages."""
    return f"{name}_train.json, {name}_val.json and {name}_test.json with {name}.taxonomy"


def json_files(data: BenchmarkDataModule, files: Sequence[Path]) -> dict[str, Path]:
    """Return the file of each split, and the taxonomy as ``taxonomy``; those that are there.

    HGCLR calls the validation file ``dev``, and HBGL adds ``_all`` to the names. Each may be plain or ``.gz``.

    Raises:
        ValueError: there are several of one kind.
    """
    found = {"taxonomy": data.only_file(files, f"{data.short_name}.taxonomy")}
    for split in SPLITS:
        stems = [f"{data.short_name}_{part}" for part in ((split, "dev") if split == "val" else (split,))]
        found[split] = data.only_file(
            files, *(f"{stem}{end}" for stem in stems for end in (".json", ".json.gz", "_all.json", "_all.json.gz"))
        )
    return {kind: path for kind, path in found.items() if path is not None}


def read_json_splits(files: dict[str, Path]) -> dict[str, Iterable[Labelled]]:
    """Return the documents of each split, which are read as they are asked for.

    Args:
        files: all that :func:`json_files` can find.

    Raises:
        ValueError: the taxonomy is broken; the message names the line.
    """
    hierarchy = read_taxonomy(files["taxonomy"])
    return {split: read_documents(files[split], hierarchy, files["taxonomy"].name) for split in SPLITS}


def read_taxonomy(path: Path) -> Taxonomy:
    """Return the taxonomy in a file of lines ``parent<TAB>child<TAB>child...``.

    Raises:
        ValueError: a line has no child or an empty name, or the lines are no hierarchy; the message names the line.
    """
    edges: dict[tuple[str, str], None] = {}
    for where, line in read_lines(path):
        if not line.strip():
            continue
        parent, *children = (name.strip() for name in line.rstrip("\r\n").rstrip("\t").split("\t"))
        if not children or not all((parent, *children)):
            raise ValueError(
                f"{where}: {shortened(line.rstrip())!r}: expected 'parent<TAB>child<TAB>child...'; correct the line"
            )
        edges.update(dict.fromkeys((ROOT if parent == "Root" else parent, child) for child in children))
    return Taxonomy(edges, source=f"{path}, edges")


def read_documents(path: Path, hierarchy: Taxonomy, taxonomy_file: str) -> Iterator[Labelled]:
    """Yield the documents of one file; topics above those that a document names are filled in.

    Args:
        path: the file, plain or gzip.
        hierarchy: the topics.
        taxonomy_file: its name, for messages.

    Raises:
        ValueError: a line is not such a document, or has a topic that the hierarchy does not know; the message names
            the line.
    """
    for where, line in read_lines(path):
        if not line.strip():
            continue
        record = parse_json(line, where, f"expected {_FORM}")
        if not isinstance(record, dict):
            raise ValueError(f"{where}: expected a JSON object {_FORM}, got {type(record).__name__}")
        words, topics = (_value(record, keys, where) for keys in (_TEXT_KEYS, _LABEL_KEYS))
        if not isinstance(words, str) and not _are_names(words):
            raise ValueError(f"{where}: token={_shown(words)}: expected a text or its words; correct the line")
        if not _are_names(topics) or not topics:
            remedy = "numbers stand for names that value_dict.pt has; write these" if topics else "delete the line"
            raise ValueError(f"{where}: label={_shown(topics)}: expected the names of one topic or more; {remedy}")
        text = words if isinstance(words, str) else " ".join(words)
        yield Labelled(text, topic_paths(topics, hierarchy, where, taxonomy_file), where)


def topic_paths(topics: Iterable[str], hierarchy: Taxonomy, where: str, taxonomy_file: str) -> list[list[str]]:
    """Return the paths from top nodes that cover all topics; ancestors that are not among them are filled in.

    Args:
        topics: names of nodes.
        hierarchy: the topics that there are.
        where: place of the document, for messages.
        taxonomy_file: name of the file that the hierarchy is from, for messages.

    Raises:
        ValueError: a topic is not in the hierarchy.
    """
    topics = list(topics)
    if unknown := [topic for topic in topics if topic not in hierarchy.index]:
        raise ValueError(f"{where}: topic {unknown[0]!r} is not in {taxonomy_file}; expected one of its names")
    nodes = {hierarchy.index[topic] for topic in topics}
    open_nodes = list(nodes)
    while open_nodes:
        parents = [parent for parent in hierarchy.parents[open_nodes.pop()] if parent not in nodes]
        nodes.update(parents)
        open_nodes += parents
    return [[hierarchy.names[node] for node in path] for path in hierarchy.label_paths(nodes)]


def _value(record: dict[str, Any], keys: Sequence[str], where: str) -> Any:
    for key in keys:
        if key in record:
            return record[key]
    raise ValueError(
        f"{where}: no key {' or '.join(map(repr, keys))}, found {shortened(sorted(record))}; expected {_FORM}"
    )


def _are_names(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _shown(value: object) -> str:
    return shortened(json.dumps(value, ensure_ascii=False), 60)
