"""The settings of a search, which are checked without an import of Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptmt_lightning.utils.checks import check_range

SAMPLERS = ("gp", "tpe", "random")


@dataclass(frozen=True)
class SearchSettings:
    """The settings of a search, which stand under ``hydra.sweeper`` in the configuration.

    Args:
        study: name of the study; also the group of its runs.
        folder: absolute path of the folder for the trials' folders, the results and pictures.
        storage: URL of the storage that Optuna is to use; None for ``study.db`` in ``folder``. Several machines can
            share a URL. One with a password reaches the trials by their environment alone.
        n_trials: number of trials of the study in all, failed and pruned ones included.
        n_jobs: number of trials that are launched together.
        sampler: ``gp`` (Bayesian optimisation with a Gaussian process), ``tpe`` or ``random``.
        seed: decides what the sampler draws.
        pruner: ``successive_halving`` to end trials with low scores early, at the end of an epoch; None for no pruning.
        min_epochs: number of epochs before the first decision to prune.
        reduction_factor: of so many trials that reach a decision, one continues.
        params: the ranges to search, ``{key: range}``, each in Hydra's grammar.

    Raises:
        ValueError: a number is out of range, sampler or pruner is unknown, or the two do not go together.
    """

    study: str
    folder: Path
    storage: str | None
    n_trials: int
    n_jobs: int
    sampler: str
    seed: int
    pruner: str | None
    min_epochs: int
    reduction_factor: int
    params: Mapping[str, Any] | None

    def __post_init__(self) -> None:
        """Refuse settings that are out of range, unknown, or do not go together."""
        for name, least in (("n_trials", 1), ("n_jobs", 1), ("min_epochs", 1), ("reduction_factor", 2)):
            check_range(f"hydra.sweeper.{name}", getattr(self, name), least, integer=True)
        if self.sampler not in SAMPLERS:
            raise ValueError(f"hydra.sweeper.sampler={self.sampler!r}: expected one of {', '.join(SAMPLERS)}")
        if self.pruner not in (None, "successive_halving"):
            raise ValueError(f"hydra.sweeper.pruner={self.pruner!r}: expected successive_halving or null")
        if self.pruner and self.sampler == "gp":
            raise ValueError(
                "hydra.sweeper.pruner with sampler=gp: the Gaussian process learns nothing from pruned trials; "
                "set hydra.sweeper.sampler=tpe, or pruner=null"
            )

    @property
    def storage_url(self) -> str:
        """URL of the storage, by default that of an SQLite file in the study's folder."""
        return self.storage or f"sqlite:///{self.folder / 'study.db'}"

    @property
    def ranges(self) -> list[str]:
        """The ranges to search, as overrides in Hydra's grammar."""
        return [f"{key}={value}" for key, value in (self.params or {}).items()]

    @property
    def pruning(self) -> dict[str, int] | None:
        """The settings of successive halving; None if no trial is to be pruned."""
        return {"min_epochs": self.min_epochs, "reduction_factor": self.reduction_factor} if self.pruner else None
