"""The prepared form of a benchmark: its documents as JSON lines, ``taxonomy.tsv`` and ``prepared.json``."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ptmt_lightning.data.document import read_records
from ptmt_lightning.taxonomy.edges import ROOT
from ptmt_lightning.utils.files import write_json


class Labelled(NamedTuple):
    """A document of a raw file, with its label paths."""

    text: str
    paths: list[list[str]]
    where: str  # file and line, for messages
    in_test: bool = False  # whether the publisher has it in the test file


class PreparedWriter:
    """Writes the prepared form, and collects edges, sizes and text lengths on the way.

    Args:
        folder: where the files are written.
        dropped: documents left out, by reason; those without a text are added here.
    """

    def __init__(self, folder: Path, dropped: Counter[str]) -> None:
        self.folder, self.dropped = folder, dropped
        self.parent_of: dict[str, str] = {}
        self.sizes: dict[str, int] = {}
        self.num_characters = 0

    def write(self, name: str, documents: Iterable[Labelled]) -> None:
        """Write the documents to ``<name>.jsonl``.

        ``all`` is a file whose splits are made later. For it, write ``classes.npy`` as well: the label that ends each
        document's path, as a number in alphabetical order. Where the publisher has a test file, ``in_test.npy`` says
        which documents are from it.

        Raises:
            ValueError: a label has two parents or is no usable name, or a text is not Unicode; the message says where.
        """
        ends, in_test = [], []
        with (self.folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for document in documents:
                if not document.text.strip():
                    self.dropped["no text"] += 1
                    continue
                self._learn_edges(document)
                self.num_characters += len(document.text)
                ends.append(document.paths[0][-1])
                in_test.append(document.in_test)
                record = {"text": document.text, "labels": document.paths}
                try:
                    file.write(json.dumps(record, ensure_ascii=False) + "\n")
                except UnicodeEncodeError as error:
                    raise ValueError(
                        f"{document.where}: {error.object[error.start]!a} is half of a character; correct the line"
                    ) from None
        self.sizes[name] = len(ends)
        if name == "all":
            index = {label: number for number, label in enumerate(sorted(self.parent_of))}
            np.save(self.folder / "classes.npy", np.array([index[label] for label in ends], dtype=np.int32))
            if any(in_test):
                np.save(self.folder / "in_test.npy", np.array(in_test))

    def _learn_edges(self, document: Labelled) -> None:
        for path in document.paths:
            for above, label in itertools.pairwise([ROOT, *path]):
                known = self.parent_of.setdefault(label, above)
                if known != above:
                    raise ValueError(
                        f"{document.where}: label {label!r} under {above!r}, elsewhere under {known!r}; "
                        "expected one parent a label"
                    )
                if label in ("", ROOT) or label != " ".join(label.split()):
                    raise ValueError(
                        f"{document.where}: label {label!r}: expected a name other than {ROOT} on one line, "
                        "with single spaces between words"
                    )

    def finish(self, **more: Any) -> None:
        """Write ``taxonomy.tsv``, its edges in alphabetical order, and ``prepared.json`` with ``more`` added."""
        edges = sorted(((above, label) for label, above in self.parent_of.items()), key=lambda e: (e[0] != ROOT, e))
        (self.folder / "taxonomy.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in edges), encoding="utf-8")
        mean = self.num_characters / sum(self.sizes.values())
        summary = {"documents": self.sizes, "mean_characters": mean, "dropped": self.dropped, **more}
        write_json(self.folder / "prepared.json", summary)


def node_name(*names: str) -> str:
    """Return a node's name as Zangari et al. (2024) write it.

    That is: without punctuation, with ``-`` in place of spaces and ``_`` between levels.
    """
    return "_".join(re.sub(r"\s+", "-", re.sub(r"[^\w\s]", "", name).strip()) for name in names)


def without_rare(documents: Sequence[Labelled], min_documents: int, dropped: Counter[str]) -> list[Labelled]:
    """Return the documents without those of rare labels, which are counted in ``dropped``.

    A label is rare if fewer than ``min_documents`` documents with a text have it as their last one.
    """
    counts = Counter(document.paths[0][-1] for document in documents if document.text)
    kept = [document for document in documents if counts[document.paths[0][-1]] >= min_documents]
    if len(kept) < len(documents):
        dropped[f"label with fewer than {min_documents} documents"] += len(documents) - len(kept)
    return kept


def read_jsonl(paths: Sequence[Path]) -> Iterator[Labelled]:
    """Yield documents in the published form: ``{"text": ..., "labels": [level-1 node, level-2 node]}`` on each line.

    Args:
        paths: one file with all documents, or the training and the test file.

    Raises:
        ValueError: a line is not in that form; the message names file and line.
    """
    for number, path in enumerate(paths):
        for _, where, record in read_records(path):
            labels = record["labels"]
            if isinstance(labels, list) and len(labels) == 1 and isinstance(labels[0], list):
                labels = labels[0]  # the project's own form
            if not (isinstance(labels, list) and labels and all(isinstance(x, str) and x.strip() for x in labels)):
                raise ValueError(
                    f'{where}: labels={json.dumps(record["labels"])}: expected one path, such as ["level 1", "level 2"]'
                )
            yield Labelled(record["text"], [[label.strip() for label in labels]], where, in_test=number == 1)
