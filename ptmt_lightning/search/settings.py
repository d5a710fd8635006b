"""Settings of a search, checked without Optuna."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptmt_lightning.utils.checks import check_range

SAMPLERS = ("gp", "tpe", "random")


@dataclass(frozen=True)
class SearchSettings:
    """Hold what ``hydra.sweeper`` says.

    Args:
        study: its name; also the group of its runs.
        folder: absolute; holds a folder a trial, the results and pictures.
        storage: URL of Optuna's (default: ``<folder>/study.db``). Several machines share a URL; a password belongs
            into the database's own password file, as the URL is written to the trials' configurations.
        n_trials: of the study in all, failed and pruned ones counted.
        n_jobs: trials that are launched together.
        sampler: ``gp`` (Bayesian optimisation with a Gaussian process), ``tpe`` or ``random``.
        seed: of the drawing.
        pruner: ``successive_halving`` ends bad trials at the end of an epoch; None: none.
        min_epochs: before the first decision to prune.
        reduction_factor: of so many trials that reach a decision one goes on.
        params: ``{key: range}``.

    Raises:
        ValueError: a number out of range, an unknown sampler or pruner, or two that do not go together.
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
        """Refuse settings that make no sense."""
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
        """Return the URL of the storage, by default of an SQLite file in the study's folder."""
        return self.storage or f"sqlite:///{self.folder / 'study.db'}"

    @property
    def ranges(self) -> list[str]:
        """Return the ranges as overrides in Hydra's grammar."""
        return [f"{key}={value}" for key, value in (self.params or {}).items()]

    @property
    def pruning(self) -> dict[str, int] | None:
        """Return the arguments of successive halving; None where no trial is pruned."""
        return {"min_epochs": self.min_epochs, "reduction_factor": self.reduction_factor} if self.pruner else None
