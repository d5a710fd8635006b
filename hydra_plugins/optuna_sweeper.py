"""The Hydra sweeper ``optuna``: a search over settings that can be killed, resumed, and shared by several machines.

It is chosen with ``-m hydra/sweeper=optuna``. Each setting to be searched has a range, on the command line in Hydra's
own grammar (``loss.margin=interval(0.02,0.1)``, ``'optimizer.learning_rate=tag(log,interval(1e-6,1e-2))'``,
``choice(a,b)``, ``range(2,11)``) or in ``hydra.sweeper.params``.

Hydra imports its plugins at every start, so this one imports Optuna only when a search begins.
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
    """A sweeper that asks an Optuna study for settings, launches jobs with them, and tells the study their scores.

    All of its state is in the study, by default an SQLite file in the study's folder. The same command continues the
    study, and several processes can work on it at once.

    Args:
        folder: folder of the study, absolute or from the folder in which the search is started.
        settings: further settings of :class:`~ptmt_lightning.search.settings.SearchSettings`.
    """

    def __init__(self, *, folder: str, **settings: Any) -> None:
        self.settings = SearchSettings(folder=Path(folder).absolute(), **settings)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what is needed to launch trials, and put the folder of each below that of the study.

        Args:
            hydra_context: gives the loader that composes the trials' configurations.
            task_function: the function that runs one job.
            config: configuration of the sweep itself.
        """
        with open_dict(config):
            folder = str(self.settings.folder)
            config.hydra.sweep.dir = folder
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(folder)}")
        self.context, self.master = hydra_context, config
        self.jobs = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Launch trials until the study has all of them, and write the report.

        Args:
            arguments: the overrides that the user typed, with and without ranges.

        Raises:
            CompactHydraException: trials failed (the message names them), or a range or the study can't be used.
        """
        from ptmt_lightning.search.sweep import Search

        Search(self.settings, config=self.master, config_loader=self.context.config_loader, launcher=self.jobs).run(
            arguments
        )
