"""Splits that a table lacks: drawn so that labels are spread evenly, and no text is in two of them."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

_Ints = npt.NDArray[np.int64]


def text_key(text: str) -> int:
    """Return a number that is equal for texts that differ in white space alone."""
    return int.from_bytes(hashlib.blake2b(" ".join(text.split()).encode(), digest_size=8).digest())


def draw(
    keys: npt.NDArray[np.uint64],
    labels: Sequence[Sequence[int]],
    paths: Sequence[tuple[str, ...]],
    shares: Mapping[str, float],
    seed: int,
) -> dict[str, npt.NDArray[np.bool_]]:
    """Return for each split in ``shares`` which documents are drawn for it; the others are left to train on.

    Documents are put in the order of the taxonomy, by the deepest label on their paths that has enough of them, and
    within one label in a random order; then each split takes them in equal steps. So each label, and each branch of
    labels, has its share of documents in each split, to within one. Documents with one text are drawn as one. Where
    there are enough other documents, the first of each path is left to train on.

    Args:
        keys: :func:`text_key` of each document.
        labels: the indices of each document's paths.
        paths: all paths.
        shares: of each split in all texts.
        seed: of the random order.

    Raises:
        ValueError: there are too few texts for a share.
    """
    _, firsts, groups = np.unique(keys, return_index=True, return_inverse=True)
    sizes = {split: round(share * len(firsts)) for split, share in shares.items()}
    for split, size in sizes.items():
        if not size or len(firsts) <= sum(sizes.values()):
            raise ValueError(f"{len(firsts)} different text(s) to draw from are too few for a {split} split")
    strata = _strata(labels, paths, enough=math.ceil(1 / min(shares.values())))[firsts]
    rng = np.random.default_rng(seed)
    rank = rng.permutation(len(firsts))
    order = np.lexsort((rank, strata))
    pinned = _first_of_each_path(groups, labels, rank)
    if len(firsts) - pinned.sum() >= sum(sizes.values()):
        order = order[~pinned[order]]
    drawn = {}
    for split, size in sizes.items():
        taken = np.floor((np.arange(size) + rng.random()) * len(order) / size).astype(np.int64)
        chosen = np.zeros(len(firsts), dtype=bool)
        chosen[order[taken]] = True
        drawn[split] = chosen[groups]
        order = np.delete(order, taken)
    return drawn


def _strata(labels: Sequence[Sequence[int]], paths: Sequence[tuple[str, ...]], enough: int) -> _Ints:
    """Return a number for each document, in the order of the taxonomy: equal for those of one label with enough."""
    counts: Counter[tuple[str, ...]] = Counter()
    for found in labels:
        counts.update({paths[path][:depth] for path in found for depth in range(1, len(paths[path]) + 1)})
    # Below a label there are never more documents than on it.
    deepest = [path[: sum(counts[path[:depth]] >= enough for depth in range(1, len(path) + 1))] for path in paths]
    chosen = [
        max((deepest[p] for p in found), key=lambda path: (len(path), -counts[path]), default=()) for found in labels
    ]
    number = {path: index for index, path in enumerate(sorted(set(chosen)))}
    return np.array([number[path] for path in chosen], dtype=np.int64)


def _first_of_each_path(groups: _Ints, labels: Sequence[Sequence[int]], rank: _Ints) -> npt.NDArray[np.bool_]:
    """Return which groups of documents are, by rank, the first of a path."""
    owners = np.repeat(groups, [len(found) for found in labels])
    path = np.fromiter((p for found in labels for p in found), dtype=np.int64, count=len(owners))
    by_rank = np.argsort(rank[owners], kind="stable")
    _, first = np.unique(path[by_rank], return_index=True)
    pinned = np.zeros(len(rank), dtype=bool)
    pinned[owners[by_rank][first]] = True
    return pinned
