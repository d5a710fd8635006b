"""The names of a run's curves, in ``metrics.csv`` and in W&B."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

# Logged under train/ beside the terms of the loss; these have names that each system chooses.
RATES = ("learning_rate", "gradient_norm", "documents_per_second", "tokens_per_second", "memory_gib")


def loss_terms(columns: Iterable[str]) -> list[str]:
    """Return the names, without ``train/``, of those columns of ``metrics.csv`` that are terms of the training loss."""
    names = [column.removeprefix("train/") for column in columns if column.startswith("train/")]
    return [name for name in names if name not in RATES]


def direction_of(name: str) -> Literal["min", "max"]:
    """Return in which direction a curve gets better: losses and their terms down, scores and rates up."""
    return "min" if name.endswith("loss") or loss_terms([name]) else "max"
