"""Choice of decision thresholds on validation documents: one for all levels, or one a level.

Shape legend: ``N`` documents, ``V`` nodes, ``D`` levels.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from ptmt_lightning.decisions import per_node
from ptmt_lightning.metrics import Classes, count, macro
from ptmt_lightning.taxonomy import Taxonomy

Tuning = Literal["global", "level"]

_CANDIDATES = tuple(i / 40 for i in range(1, 40))
_CHUNK = 4096  # documents that are decided at a time, to bound memory
_ROUNDS = 3  # highest number of passes over the levels


def check_tuning(tuning: str | None) -> None:
    """Refuse a way of tuning that is not known.

    Raises:
        ValueError: names the setting and what it may be.
    """
    if tuning not in (None, *get_args(Tuning)):
        raise ValueError(f"model.tune_threshold={tuning!r}: expected null, 'global' or 'level'")


def tune_thresholds(
    probabilities: Tensor,
    targets: Tensor,
    taxonomy: Taxonomy,
    *,
    tuning: Tuning,
    prune: bool,
    classes: Classes = "present",
) -> list[float]:
    """Return the candidate thresholds with the highest ``h_f1_macro``; of equally good ones those nearest to 0.5.

    Args:
        probabilities: ``[N, V]``.
        targets: true nodes, bool ``[N, V]``, not augmented.
        taxonomy: hierarchy of the labels.
        tuning: ``global`` for one threshold for all levels; ``level`` for one a level, which starts from the best
            common one and changes one level at a time for as long as that helps.
        prune: whether predictions are pruned.
        classes: see :func:`~ptmt_lightning.metrics.macro`.

    Returns:
        ``D`` thresholds.
    """
    true = taxonomy.augment(targets)

    def quality(thresholds: list[float]) -> tuple[float, float]:
        limits = per_node(thresholds, taxonomy.level_sizes, probabilities.device)
        counts = torch.zeros(3, len(taxonomy), dtype=torch.long, device=probabilities.device)
        for some_probabilities, some_true in zip(probabilities.split(_CHUNK), true.split(_CHUNK), strict=True):
            predicted = some_probabilities > limits
            predicted = taxonomy.augment(taxonomy.prune(predicted) if prune else predicted)
            counts += count(predicted, some_true)
        # Rounded: where two thresholds give labels the same F1 values in another order, the last digits of the means
        # differ.
        return round(macro(counts, classes).f1.item(), 12), -sum(abs(threshold - 0.5) for threshold in thresholds)

    num_levels = taxonomy.num_levels
    best = max(([candidate] * num_levels for candidate in _CANDIDATES), key=quality)
    if tuning == "global":
        return best
    for _ in range(_ROUNDS):
        before = best
        for level in range(num_levels):
            best = max(([*best[:level], candidate, *best[level + 1 :]] for candidate in _CANDIDATES), key=quality)
        if best == before:
            break
    return best
