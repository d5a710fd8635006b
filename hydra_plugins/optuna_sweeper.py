"""Hydra sweeper ``optuna``: a search over settings that can be killed, resumed, and shared by several machines.

``-m hydra/sweeper=optuna`` with a range for each setting to be searched, on the command line in Hydra's own grammar
(``loss.margin=interval(0.02,0.1)``, ``'optimizer.learning_rate=tag(log,interval(1e-6,1e-2))'``, ``choice(a,b)``,
``range(2,11)``) or in ``hydra.sweeper.params``.

Hydra imports its plugins at every start, so this one imports Optuna only where a search begins.
"""

from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from ptmt_lightning.launch.overrides import quoted
from ptmt_lightning.search.settings import SearchSettings


class OptunaSweeper(Sweeper):
    """Ask an Optuna study for settings, launch them as jobs, and tell it the scores.

    The study, by default an SQLite file in its folder, is all the state there is: the same command goes on with it,
    and several processes may, at once.

    Args:
        folder: of the study, from where the search was started.
        settings: the others of :class:`~ptmt_lightning.search.settings.SearchSettings`.
    """

    def __init__(self, *, folder: str, **settings: Any) -> None:
        self.settings = SearchSettings(folder=Path(folder).absolute(), **settings)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what the trials are made of; the folder of job N is that of trial N."""
        with open_dict(config):
            folder = str(self.settings.folder)
            config.hydra.sweep.dir = folder
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(folder)}")
        self.context, self.master = hydra_context, config
        self.jobs = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Launch trials until the study has all of them; write what was found."""
        from ptmt_lightning.search.sweep import Search

        Search(self.settings, config=self.master, config_loader=self.context.config_loader, launcher=self.jobs).run(
            arguments
        )
