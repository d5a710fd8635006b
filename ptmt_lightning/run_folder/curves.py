"""The names of a run's curves, in ``metrics.csv`` and in W&B."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

# Logged under train/ beside the terms of the loss; these have names that each system chooses.
RATES = ("learning_rate", "gradient_norm", "documents_per_second", "tokens_per_second", "memory_gib")

_THROUGHPUT = ("documents_per_second", "tokens_per_second")
# Names of counts and times of an evaluation, by which no run is better.
_NO_SCORE = re.compile(r"(^|_)(count|counts|seconds|minutes|time|epoch|step|steps|memory|gib)$|^num_")


def loss_terms(columns: Iterable[str]) -> list[str]:
    """Return the names, without ``train/``, of those columns of ``metrics.csv`` that are terms of the training loss."""
    names = [column.removeprefix("train/") for column in columns if column.startswith("train/")]
    return [name for name in names if name not in RATES]


def direction_of(name: str) -> Literal["min", "max"] | None:
    """Return in which direction a curve gets better: losses and their terms down, scores and throughput up.

    Args:
        name: as it is logged, ``val/h_f1_macro``.

    Returns:
        None for what has no better or worse: learning rate, memory, times, counts, and what is not of a split.
    """
    split, _, curve = name.rpartition("/")
    if split == "train":
        return "max" if curve in _THROUGHPUT else None if curve in RATES else "min"
    if split not in ("val", "test") or _NO_SCORE.search(curve):
        return None
    return "min" if curve.endswith("loss") else "max"


def mode_of(monitor: str) -> Literal["min", "max"]:
    """Return the direction in which the monitored curve gets better.

    Raises:
        ValueError: it has none.
    """
    mode = direction_of(monitor)
    if mode is None:
        raise ValueError(
            f"monitor={monitor!r}: expected a score or a loss, which are better when they are higher or lower; set "
            "monitor to one, such as val/h_f1_macro or val/label_loss"
        )
    return mode
