"""The names of a run's curves, in ``metrics.csv`` and in W&B."""

from __future__ import annotations

from collections.abc import Iterable

# Logged under train/ beside the terms of the loss; these have names that each system chooses.
RATES = ("learning_rate", "gradient_norm", "documents_per_second", "tokens_per_second", "memory_gib")


def loss_terms(columns: Iterable[str]) -> list[str]:
    """Return the names, without ``train/``, of those columns of ``metrics.csv`` that are terms of the training loss."""
    names = [column.removeprefix("train/") for column in columns if column.startswith("train/")]
    return [name for name in names if name not in RATES]
