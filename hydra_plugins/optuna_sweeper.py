"""Hydra sweeper ``optuna``: a search over settings that can be killed, resumed, and shared by several machines.

``-m hydra/sweeper=optuna`` with a range for each setting to be searched, on the command line in Hydra's own grammar
(``loss.margin=interval(0.02,0.1)``, ``'optimizer.learning_rate=tag(log,interval(1e-6,1e-2))'``, ``choice(a,b)``,
``range(2,11)``) or in ``hydra.sweeper.params``.
"""

import logging
import math
import warnings
from pathlib import Path

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.errors import CompactHydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import Trial

from ptmt_lightning.launch.errors import JobNotRunError, compact_errors
from ptmt_lightning.launch.overrides import config_options, quoted
from ptmt_lightning.search.ranges import any_value, distribution_of
from ptmt_lightning.search.report import write_report
from ptmt_lightning.search.studies import SAMPLERS, SharedStudy
from ptmt_lightning.utils.checks import check_range

log = logging.getLogger(__name__)


class OptunaSweeper(Sweeper):
    """Asks an Optuna study for settings, launches them as jobs, and tells it the scores.

    The study, by default an SQLite file in its folder, is all the state there is: the same command goes on with it,
    and several processes may, at once.

    Args:
        study: its name; also the group of its runs.
        folder: holds a folder a trial, the results and pictures.
        storage: URL of Optuna's (default: ``<folder>/study.db``). Several machines share a URL; a password belongs
            into the database's own password file, as the URL is written to the trials' configurations.
        n_trials: of the study in all, failed and pruned ones counted.
        n_jobs: trials that are launched together.
        sampler: ``gp`` (Bayesian optimisation with a Gaussian process), ``tpe`` or ``random``.
        pruner: ``successive_halving`` ends bad trials at the end of an epoch; None: none.
        min_epochs: before the first decision to prune.
        reduction_factor: of so many trials that reach a decision one goes on.
        params: ``{key: range}``.
    """

    def __init__(
        self,
        study: str,
        folder: str,
        storage: str | None,
        n_trials: int,
        n_jobs: int,
        sampler: str,
        seed: int,
        pruner: str | None,
        min_epochs: int,
        reduction_factor: int,
        params: DictConfig | None,
    ) -> None:
        for name, value, least in (
            ("n_trials", n_trials, 1), ("n_jobs", n_jobs, 1), ("min_epochs", min_epochs, 1),
            ("reduction_factor", reduction_factor, 2),
        ):  # fmt: skip
            check_range(f"hydra.sweeper.{name}", value, least, integer=True)
        if sampler not in SAMPLERS:
            raise ValueError(f"hydra.sweeper.sampler={sampler!r}: expected one of {', '.join(SAMPLERS)}")
        if pruner not in (None, "successive_halving"):
            raise ValueError(f"hydra.sweeper.pruner={pruner!r}: expected successive_halving or null")
        if pruner and sampler == "gp":
            raise ValueError(
                "hydra.sweeper.pruner with sampler=gp: the Gaussian process learns nothing from pruned trials; "
                "set hydra.sweeper.sampler=tpe, or pruner=null"
            )
        self.name, self.folder, self.n_trials, self.n_jobs = study, Path(folder).absolute(), n_trials, n_jobs
        self.storage_url = storage or f"sqlite:///{self.folder / 'study.db'}"
        self.sampler, self.seed = sampler, seed
        self.pruning = {"min_epochs": min_epochs, "reduction_factor": reduction_factor} if pruner else None
        self.params = {str(key): str(value) for key, value in (params or {}).items()}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config_loader = hydra_context.config_loader
        self.direction, self.monitor = StudyDirection[f"{config.mode}imize".upper()], config.monitor
        self.fail_fast = bool(OmegaConf.select(config, "hydra.launcher.fail_fast"))
        with open_dict(config):
            # The folder of job N is that of trial N; each job gets N with its settings.
            config.hydra.sweep.dir = str(self.folder)
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(str(self.folder))}")
        self.master: DictConfig = config
        self.jobs = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Launch trials until the study has all of them; write what was found.

        Raises:
            CompactHydraException: some trials failed; says which.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        with compact_errors():
            fixed, space = self._space(arguments)
        # What can't be composed is refused before the study is begun.
        values = [f"{key}={any_value(distribution)}" for key, distribution in space.items()]
        self.config_loader.load_sweep_config(self.master, [*fixed, *values])
        with compact_errors():
            study = SharedStudy(
                self.name, folder=self.folder, storage=self.storage_url, direction=self.direction,
                sampler=self.sampler, seed=self.seed, n_trials=self.n_trials, fixed=fixed, space=space,
            )  # fmt: skip
        options = config_options(self.master.hydra)
        command = ["python", "run.py", *options, *(a for a in fixed if not a.startswith("search="))]
        failed = []
        with study.at_work():
            while trials := study.next_trials(self.n_jobs):
                failed += self._run(study, trials, fixed)
                write_report(study, command)
                if failed and self.fail_fast:
                    break
        if best := write_report(study, command):
            log.info("%s\nthe best trial's command: %s", study.states(), best)
        if failed:
            raise CompactHydraException("\n".join(["error: trials failed:", *failed]))

    def _space(self, arguments: list[str]) -> tuple[list[str], dict[str, BaseDistribution]]:
        """The arguments without a range, and the ranges by key; of the configuration's, none that the loss has not."""
        parser = OverridesParser.create(config_loader=self.config_loader)
        ranges = [f"{key}={value}" for key, value in self.params.items()]
        fixed, space = dict[str, str](), dict[str, BaseDistribution]()
        for override in parser.parse_overrides([*ranges, *arguments]):  # an argument replaces a range of the config
            key = override.get_key_element()
            fixed.pop(key, None)
            space.pop(key, None)
            if override.is_sweep_override():
                space[key] = distribution_of(override)
            else:
                fixed[key] = key + "=" + override.get_value_element_as_str()
        chosen = self.config_loader.load_sweep_config(self.master, list(fixed.values()))
        typed = {override.get_key_element() for override in parser.parse_overrides(arguments)}
        for key in [key for key in space if key.startswith("loss.") and key not in typed]:
            if key.removeprefix("loss.") not in chosen.loss:
                log.warning("%s is not searched: %s has no such setting", key, chosen.loss._target_)
                del space[key]
        if not space:
            raise ValueError(
                "hydra/sweeper=optuna: no setting with a range; add one, as in 'loss.margin=interval(0.02,0.1)', or "
                "search=ptmt"
            )
        return list(fixed.values()), space

    def _run(self, study: SharedStudy, trials: list[Trial], fixed: list[str]) -> list[str]:
        """Launch trials and tell the study how they ended; gives those that failed, in words."""
        failed = []
        overrides = [[*fixed, *self._overrides(trial)] for trial in trials]
        with study.beating(trials):
            returns = self.jobs.launch(overrides, initial_job_idx=trials[0].number)
        for trial, returned in zip(trials, returns, strict=True):
            if isinstance(returned._return_value, JobNotRunError):
                continue  # the next start takes it up
            score = returned._return_value if returned.status == JobStatus.COMPLETED else None
            if score is None or math.isnan(score):
                score = None
                failed.append(f"trial {trial.number}, see {self.folder / str(trial.number)}")
            study.tell(trial, score)
        return failed

    def _overrides(self, trial: Trial) -> list[str]:
        settings = [f"{key}={value}" for key, value in trial.params.items()]
        settings += [f"hydra.sweep.subdir={trial.number}", f"run.group={quoted(self.name)}"]
        if self.pruning:
            pruning = {
                "_target_": "ptmt_lightning.search.pruning.Pruning", "storage": self.storage_url, "study": self.name,
                "trial": trial.number, "monitor": self.monitor, **self.pruning,
            }  # fmt: skip
            settings += [f"+callbacks.pruning.{key}={quoted(value)}" for key, value in pruning.items()]
        return settings
