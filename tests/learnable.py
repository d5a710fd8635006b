"""Documents whose words tell their labels, which any model can learn by heart."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from conftest import write_folder

TOPS, BELOW, LEAVES = 4, 3, 2  # nodes below each node, level by level


def write_learnable(folder: Path, size: int = 64) -> Path:
    """A folder with the same documents in each split: several paths, some of which end early; each label has a word."""
    rng = np.random.default_rng(0)
    parts = [f"t{top}" for top in range(TOPS)]
    middle = [(top, f"{top}m{i}") for top, i in itertools.product(parts, range(BELOW))]
    leaves = [(node, f"{node}l{i}") for (_, node), i in itertools.product(middle, range(LEAVES))]
    edges = [*(("ROOT", top) for top in parts), *middle, *leaves]
    below = {parent: [child for above, child in edges if above == parent] for parent, _ in edges}
    syllables = map("".join, itertools.product("bdfgklmnprstvz", "aeiou"))  # one token each, whatever the tokenizer
    words = {child: next(syllables) for _, child in edges}
    fillers = list(itertools.islice(syllables, 20))
    documents: list[dict[str, Any]] = []
    for _ in range(size):
        paths = [_path(below, rng) for _ in range(rng.integers(1, 3))]
        labels = list(dict.fromkeys(label for path in paths for label in path))
        chosen = [words[label] for label in labels] + [fillers[i] for i in rng.integers(len(fillers), size=2)]
        rng.shuffle(chosen)
        documents.append({"text": " ".join(chosen), "labels": [list(path) for path in dict.fromkeys(paths)]})
    return write_folder(folder, edges, train=documents, val=documents, test=documents)


def _path(below: dict[str, list[str]], rng: np.random.Generator) -> tuple[str, ...]:
    path: list[str] = []
    children = below["ROOT"]
    while children and not (path and rng.random() < 0.2):
        path.append(children[rng.integers(len(children))])
        children = below.get(path[-1], [])
    return tuple(path)
