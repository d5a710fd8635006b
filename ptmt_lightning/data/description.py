"""What is in a data set: documents, labels and their frequencies, lengths, and what may be wrong with it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ptmt_lightning.data.document import SPLITS, read_documents, split_file
from ptmt_lightning.data.tables.splits import text_key
from ptmt_lightning.taxonomy import Taxonomy

RARE = 5  # a label with fewer documents to train on is rare
_CHUNK = 1000  # texts whose lengths are counted at a time
_NAMED = 10  # labels that are named of each kind
Lengths = Callable[[Sequence[str]], Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class SplitFigures:
    """The documents of one split; arrays are ``[documents]`` or ``[nodes]``."""

    lengths: npt.NDArray[np.int64]
    keys: npt.NDArray[np.uint64]  # equal for texts that differ in white space alone
    counts: npt.NDArray[np.int64]  # documents with each node, all nodes on a path included
    unlabelled: int
    paths: int  # of all documents


@dataclass(frozen=True, kw_only=True)
class Description:
    """What :func:`describe` found.

    Args:
        taxonomy: of the data.
        splits: figures of each split that is there.
        unit: what lengths are counted in, ``tokens`` or ``words``.
        max_length: of a sequence, in tokens.
        reserved: tokens of a sequence that are not text, by the kind of system.
    """

    taxonomy: Taxonomy
    splits: dict[str, SplitFigures]
    unit: str
    max_length: int
    reserved: dict[str, int] = field(default_factory=dict)

    def cut(self, split: str, reserved: int) -> int:
        """Return how many texts of a split do not fit beside so many other tokens."""
        return int((self.splits[split].lengths > self.max_length - reserved).sum())

    def content(self) -> dict[str, Any]:
        """Return all figures as plain types, for JSON."""
        return {
            "unit": self.unit,
            "max_length": self.max_length,
            "splits": {split: self._split(split) for split in self.splits},
            "levels": [self._level(level) for level in range(1, self.taxonomy.num_levels + 1)],
            "findings": self._findings(),
        }

    def _split(self, split: str) -> dict[str, Any]:
        figures = self.splits[split]
        size = len(figures.lengths)
        median, high = np.percentile(figures.lengths, [50, 95])
        return {
            "documents": size,
            "without_labels": figures.unlabelled,
            "paths_per_document": figures.paths / size,
            "length_median": float(median),
            "length_95": float(high),
            "length_max": int(figures.lengths.max()),
            "cut": {kind: self.cut(split, reserved) for kind, reserved in self.reserved.items()},
            "repeated_texts": size - len(np.unique(figures.keys)),
        }

    def _level(self, level: int) -> dict[str, Any]:
        nodes = self.taxonomy.level_slices[level - 1]
        train = (
            self.splits["train"].counts[nodes] if "train" in self.splits else np.zeros(nodes.stop - nodes.start, int)
        )
        seen = train[train > 0]
        return {
            "level": level,
            "labels": len(train),
            "documents_median": float(np.median(train)),
            "documents_min": int(train.min()),
            "documents_max": int(train.max()),
            "imbalance": float(seen.max() / seen.min()) if len(seen) else None,
            "rare": int(((train > 0) & (train < RARE)).sum()),
            "unseen": int((train == 0).sum()),
        }

    def _findings(self) -> dict[str, Any]:
        """Return what may be wrong: a number, or names of nodes, by kind."""
        taxonomy = self.taxonomy
        train = self.splits["train"].counts if "train" in self.splits else np.zeros(len(taxonomy), dtype=np.int64)
        others = np.zeros_like(train)
        for split in self.splits.keys() - {"train"}:
            others += self.splits[split].counts
        names = Counter(taxonomy.labels)
        kinds: dict[str, Sequence[int]] = {
            "only_in_evaluation": np.flatnonzero((train == 0) & (others > 0)).tolist(),
            "nowhere": np.flatnonzero((train == 0) & (others == 0)).tolist(),
            "several_parents": [node for node, parents in enumerate(taxonomy.parents) if len(parents) > 1],
        }
        found: dict[str, Any] = {
            kind: {"count": len(nodes), "examples": [taxonomy.names[node] for node in nodes[:_NAMED]]}
            for kind, nodes in kinds.items()
        }
        several = [name for name, count in names.items() if count > 1]
        found["repeated_names"] = {"count": len(several), "examples": several[:_NAMED]}
        found["texts_in_two_splits"] = {
            f"{one}, {other}": len(np.intersect1d(self.splits[one].keys, self.splits[other].keys))
            for one, other in itertools.combinations(self.splits, 2)
        }
        return found


def describe(
    folder: Path, taxonomy: Taxonomy, lengths: Lengths, *, unit: str, max_length: int, reserved: dict[str, int]
) -> Description:
    """Read all splits of a folder once.

    Args:
        folder: in the project's own form; each split may be missing, but not all.
        taxonomy: of its labels.
        lengths: returns the length of each text.
        unit: what lengths are counted in.
        max_length: of a sequence, in tokens.
        reserved: tokens of a sequence that are not text, by the kind of system.

    Raises:
        ValueError: no split is there, or a document is not valid; the message names file and line.
    """
    files = {split: path for split in SPLITS if (path := split_file(folder, split)) is not None}
    if not files:
        raise ValueError(f"{folder}: no train.jsonl, val.jsonl or test.jsonl (or .gz) there; give the path of a table")
    splits = {split: _figures(path, split, taxonomy, lengths) for split, path in files.items()}
    return Description(taxonomy=taxonomy, splits=splits, unit=unit, max_length=max_length, reserved=reserved)


def _figures(path: Path, split: str, taxonomy: Taxonomy, lengths: Lengths) -> SplitFigures:
    counts = np.zeros(len(taxonomy), dtype=np.int64)
    sizes: list[int] = []
    keys: list[int] = []
    unlabelled = paths = 0
    documents = read_documents(path, split, taxonomy)
    for chunk in _chunks(documents):
        texts = [document.text for document in chunk]
        sizes += lengths(texts)
        keys += map(text_key, texts)
        for document in chunk:
            counts[list(document.nodes)] += 1
            unlabelled += not document.nodes
            paths += len(taxonomy.label_paths(document.nodes))
    return SplitFigures(
        lengths=np.array(sizes, dtype=np.int64),
        keys=np.array(keys, dtype=np.uint64),
        counts=counts,
        unlabelled=unlabelled,
        paths=paths,
    )


def _chunks(items: Iterator[Any]) -> Iterator[list[Any]]:
    while chunk := list(itertools.islice(items, _CHUNK)):
        yield chunk
