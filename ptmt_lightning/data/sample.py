"""The built-in sample: a made-up taxonomy and made-up texts, written in the project's own data format.

Siblings share a pool of words and differ only in which of them they use most, so that no single word gives a node
away. A document follows one to three paths, which may end above a leaf. The words of its paths are shuffled together
with filler words.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.data.kinds import fitting_dataset, is_sample
from ptmt_lightning.edges import ROOT
from ptmt_lightning.utils.files import new_folder

_SIZES = {"train": 6000, "val": 600, "test": 1200}
_BRANCHING = (5, 3, 3)  # children of the root, of a top node, of a level-2 node
_POOL_SIZE = 15  # words that siblings share
_NODE_WORDS = 5  # words of the pool that one sibling uses
_WORDS_A_NODE = 6  # words in a document for each node on its paths
_FILLER_SHARE = 0.25
_PATH_COUNTS = (0.6, 0.3, 0.1)  # probability of 1, 2, 3 paths
_END_EARLY = 0.15  # probability that a path ends at a node that has children
_NOISE = 0.03  # share of a node's words that are drawn from the whole pool


class SampleDataModule(HTCDataModule):
    """Data module of the built-in sample, which it writes to ``path`` at the first start."""

    def prepare_data(self) -> None:
        """Write the sample unless it is there already, then check its folder.

        Raises:
            ValueError: something else is there; the message says which data set to choose for it.
        """
        if self.path.exists() and not is_sample(self.path):
            raise ValueError(
                f"dataset.path={str(self.path)!r}: not the built-in sample, which dataset=sample is; for your own data "
                f"set {fitting_dataset(str(self.path))}"
            )
        write_sample(self.path)
        super().prepare_data()


@dataclass
class _Node:
    name: str
    words: list[str]
    pool: list[str]
    children: list[_Node]


def write_sample(folder: Path) -> None:
    """Write ``taxonomy.tsv`` and ``{train,val,test}.jsonl`` into ``folder``, unless it exists.

    The files are the same on every machine.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.exists():
            return
        with new_folder(folder) as temporary:
            _write_files(temporary)


def _write_files(folder: Path) -> None:
    rng = np.random.default_rng(0)
    words = _Words(rng)
    filler = words.take(120)
    tops = _grow(words, rng, _BRANCHING)
    edges = list(_edges(ROOT, tops))
    (folder / "taxonomy.tsv").write_text("".join(f"{parent}\t{child}\n" for parent, child in edges), encoding="utf-8")
    for split, size in _SIZES.items():
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(_document(tops, filler, rng)) + "\n" for _ in range(size))


class _Words:
    """A supply of distinct invented words."""

    def __init__(self, rng: np.random.Generator) -> None:
        syllables = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
        self._words = ["".join(parts) for parts in itertools.product(syllables, repeat=3)]
        rng.shuffle(self._words)

    def take(self, count: int) -> list[str]:
        """Return the next ``count`` words, none of which was returned before."""
        taken, self._words = self._words[:count], self._words[count:]
        return taken


def _grow(words: _Words, rng: np.random.Generator, branching: tuple[int, ...]) -> list[_Node]:
    """Return siblings with overlapping vocabularies, and their descendants.

    The third child of each top node is a leaf, so that not all branches are equally deep.
    """
    if not branching:
        return []
    pool = words.take(_POOL_SIZE)
    nodes = []
    for index in range(branching[0]):
        own = list(rng.choice(pool, size=_NODE_WORDS, replace=False))
        stops = len(branching) == 2 and index == 2
        children = [] if stops else _grow(words, rng, branching[1:])
        nodes.append(_Node(words.take(1)[0], own, pool, children))
    return nodes


def _edges(parent: str, nodes: list[_Node]) -> itertools.chain[tuple[str, str]]:
    here = [(parent, node.name) for node in nodes]
    return itertools.chain(here, *(_edges(node.name, node.children) for node in nodes))


def _document(tops: list[_Node], filler: list[str], rng: np.random.Generator) -> dict[str, object]:
    num_paths = rng.choice(len(_PATH_COUNTS), p=_PATH_COUNTS) + 1
    paths = {tuple(node.name for node in path): path for path in (_walk(tops, rng) for _ in range(num_paths))}
    nodes = {node.name: node for path in paths.values() for node in path}
    text = [word for node in nodes.values() for word in _words_of(node, rng)]
    text += rng.choice(filler, size=round(len(text) * _FILLER_SHARE / (1 - _FILLER_SHARE))).tolist()
    rng.shuffle(text)
    return {"text": " ".join(text), "labels": [list(path) for path in paths]}


def _walk(nodes: list[_Node], rng: np.random.Generator) -> list[_Node]:
    path: list[_Node] = []
    while nodes and not (path and rng.random() < _END_EARLY):
        path.append(nodes[rng.integers(len(nodes))])
        nodes = path[-1].children
    return path


def _words_of(node: _Node, rng: np.random.Generator) -> list[str]:
    return [str(rng.choice(node.pool if rng.random() < _NOISE else node.words)) for _ in range(_WORDS_A_NODE)]
