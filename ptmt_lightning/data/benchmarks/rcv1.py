"""RCV1-v2 (Lewis et al. 2004): 804,414 newswire stories, 103 topics on four levels, several paths a story.

LYRL2004 publishes the stories as stems in scrambled order, without stop words: what a bag of words needs, and little of
what a language model does. Figures of language models are of the licensed texts, in the JSON files of HGCLR and others.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from sklearn.model_selection import train_test_split

from ptmt_lightning.data.benchmarks.base import BenchmarkDataModule, Published, Raw
from ptmt_lightning.data.benchmarks.download import Source
from ptmt_lightning.data.benchmarks.prepared import Labelled
from ptmt_lightning.data.benchmarks.topic_sets import json_files, json_form, read_json_splits, topic_paths
from ptmt_lightning.data.document import read_lines
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.edges import ROOT
from ptmt_lightning.utils.checks import check_range, shortened

_PLACE = "https://jmlr.csail.mit.edu/papers/volume5/lewis04a"
_TRAIN, *_TESTS = (f"lyrl2004_tokens_{part}.dat" for part in ("train", "test_pt0", "test_pt1", "test_pt2", "test_pt3"))
_QRELS, _HIERARCHY = "rcv1-v2.topics.qrels", "rcv1.topics.hier.orig"
_TOKEN_FORM = "the token files of LYRL2004"
_VALIDATION_SHARE = 0.1  # as HGCLR and HPT have it
_EDGE = re.compile(r"parent:\s+(\S+)\s+child:\s+(\S+)(\s+child-description:.*)?")


class RCV1DataModule(BenchmarkDataModule):
    """RCV1-v2; see :class:`~ptmt_lightning.data.benchmarks.base.BenchmarkDataModule`.

    Args:
        val_seed: of the token files, seeds the drawing of validation documents, a tenth of the training documents.
        shared: see :class:`~ptmt_lightning.data.benchmarks.base.BenchmarkDataModule`.
    """

    short_name = "rcv1"
    source = Source(
        page=f"{_PLACE}/lyrl2004_rcv1v2_README.htm",
        files={
            **{f"{name}.gz": f"{_PLACE}/a12-token-files/{name}.gz" for name in (_TRAIN, *_TESTS)},
            f"{_QRELS}.gz": f"{_PLACE}/a08-topic-qrels/{_QRELS}.gz",
            _HIERARCHY: f"{_PLACE}/a02-orig-topics-hierarchy/{_HIERARCHY}",
        },
    )
    published = Published(804_414, (4, 55, 43, 1), None, 20_833, 2_316, 781_265)
    known_deviations: ClassVar = {
        "train": (20_834, "train_test_split rounds the other way"),
        "val": (2_315, "train_test_split rounds the other way"),
    }

    def __init__(self, *, val_seed: int = 0, **shared: Any) -> None:
        super().__init__(**shared)
        check_range("dataset.val_seed", val_seed, 0, 2**32 - 1, integer=True)
        self.val_seed = val_seed

    def settings(self) -> dict[str, Any]:
        """Return the setting that changes the prepared documents, ``val_seed``."""
        return {"val_seed": self.val_seed}

    @property
    def protocol(self) -> str:
        """How the splits were made, in words, for ``result.json``."""
        if self.summary["form"] != _TOKEN_FORM:
            return "the splits of the JSON files"
        return f"split of LYRL2004; validation: 10 % of its training documents, seed {self.val_seed}"

    def read_raw(self, files: Sequence[Path]) -> Raw:
        """Read the token files of LYRL2004, or the JSON files."""
        names = (_TRAIN, *_TESTS, _QRELS, _HIERARCHY)
        tokens = [path for name in names if (path := self.only_file(files, name, f"{name}.gz"))]
        found = json_files(self, files)
        if bool(tokens) == bool(found) or len(tokens or names) < len(names) or (found and len(found) < 4):
            raise self.not_found(
                files, f"one of: {', '.join(names)}, each plain or .gz; the licensed texts as {json_form('rcv1')}"
            )
        if found:
            return Raw(f"the JSON files in {found['train'].parent}", read_json_splits(found), Counter())
        train, *tests, qrels, hierarchy_file = tokens
        hierarchy = read_hierarchy(hierarchy_file)
        topics = Topics(qrels, hierarchy)
        known = list(read_tokens([train], topics))
        kept, drawn = train_test_split(known, test_size=_VALIDATION_SHARE, random_state=self.val_seed)
        return Raw(_TOKEN_FORM, {"train": kept, "val": drawn, "test": read_tokens(tests, topics)}, Counter())


def read_hierarchy(path: Path) -> Taxonomy:
    """Return the taxonomy in ``rcv1.topics.hier.orig``, whose lines are ``parent: P child: C child-description: D``.

    Raises:
        ValueError: a line is not of that form, or the lines are no hierarchy; the message names the line.
    """
    edges = []
    for where, line in read_lines(path):
        if not line.strip():
            continue
        found = _EDGE.fullmatch(line.strip())
        if not found:
            raise ValueError(
                f"{where}: {shortened(line.strip())!r}: expected 'parent: TOPIC child: TOPIC child-description: ...'; "
                "fetch the file again"
            )
        parent, child = found[1], found[2]
        if child != "Root":  # below None
            edges.append((ROOT if parent == "Root" else parent, child))
    return Taxonomy(edges, source=f"{path}, edges")


class Topics:
    """The topics of all stories, in a few bytes each.

    Args:
        path: ``rcv1-v2.topics.qrels``, whose lines are ``TOPIC STORY 1``.
        hierarchy: the topics that there are.

    Raises:
        ValueError: a line is not of that form, or has another topic; the message names the line.
    """

    def __init__(self, path: Path, hierarchy: Taxonomy) -> None:
        self.path, self.hierarchy = path, hierarchy
        stories, nodes = array("q"), array("h")
        for where, line in read_lines(path):
            fields = line.split()
            if not fields:
                continue
            if len(fields) != 3 or not fields[1].isdecimal() or fields[2] != "1":
                raise ValueError(
                    f"{where}: {shortened(line.strip())!r}: expected 'TOPIC STORY 1'; fetch the file again"
                )
            if fields[0] not in hierarchy.index:
                raise ValueError(f"{where}: topic {fields[0]!r} is not in {_HIERARCHY}; expected one of its topics")
            stories.append(int(fields[1]))
            nodes.append(hierarchy.index[fields[0]])
        order = np.argsort(np.asarray(stories), kind="stable")
        self._stories, self._nodes = np.asarray(stories)[order], np.asarray(nodes)[order]

    def paths(self, story: int, where: str) -> list[list[str]]:
        """Return the label paths of a story.

        Args:
            story: its number.
            where: its place, for messages.

        Raises:
            ValueError: it has no topic.
        """
        first, end = np.searchsorted(self._stories, [story, story + 1])
        if first == end:
            raise ValueError(f"{where}: story {story} has no topic in {self.path.name}; fetch both files again")
        names = [self.hierarchy.names[node] for node in self._nodes[first:end]]
        return topic_paths(names, self.hierarchy, where, _HIERARCHY)


def read_tokens(paths: Sequence[Path], topics: Topics) -> Iterator[Labelled]:
    """Yield the stories of token files: ``.I STORY``, ``.W``, then lines of stems up to a blank line.

    Raises:
        ValueError: a line is out of place, or a story has no topic; the message names the line.
    """
    for path in paths:
        story: int | None = None
        words: list[str] | None = None  # None before .W
        start = where = f"{path}:1"
        for where, line in read_lines(path):
            line = line.strip()
            if line.startswith(".I"):
                if story is not None:
                    yield _story(story, words, topics, start)
                number = line.removeprefix(".I").strip()
                if not number.isdecimal():
                    raise ValueError(
                        f"{where}: {shortened(line)!r}: expected '.I' and a story's number; fetch the file again"
                    )
                story, words, start = int(number), None, where
            elif line == ".W" and story is not None and words is None:
                words = []
            elif line and words is not None:
                words.append(line)
            elif line:
                expected = "'.I' and a story's number" if story is None else "'.W'"
                raise ValueError(f"{where}: {shortened(line)!r}: expected {expected}; fetch the file again")
        if story is None:
            raise ValueError(f"{path}: no story in it; fetch the file again")
        yield _story(story, words, topics, start)


def _story(story: int, words: list[str] | None, topics: Topics, where: str) -> Labelled:
    if words is None:
        raise ValueError(f"{where}: no '.W' for story {story}; the file is cut off, fetch it again")
    return Labelled(" ".join(words), topics.paths(story, where), where)
