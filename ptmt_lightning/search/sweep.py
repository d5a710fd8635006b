"""The loop of a search: asks an Optuna study for settings, runs jobs with them, and tells the study their scores."""

from __future__ import annotations

import logging
import math
import warnings

import optuna
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution
from optuna.study import StudyDirection
from optuna.trial import Trial

from ptmt_lightning.launch.errors import JobNotRunError, JobsFailedError, compact_errors
from ptmt_lightning.launch.overrides import config_options, quoted
from ptmt_lightning.launch.program import typed_program
from ptmt_lightning.run_folder.curves import mode_of
from ptmt_lightning.search.ranges import any_value, distribution_of
from ptmt_lightning.search.report import write_report
from ptmt_lightning.search.settings import SearchSettings
from ptmt_lightning.search.studies import SharedStudy
from ptmt_lightning.utils.secrets import in_environment, is_secret

log = logging.getLogger(__name__)


class Search:
    """A search, which launches the trials of a study as jobs until it has all of them.

    Args:
        settings: settings of the search.
        config: configuration of the sweep itself, with the settings that all trials share.
        config_loader: composes the configurations of trials.
        launcher: runs the jobs.
    """

    def __init__(
        self, settings: SearchSettings, *, config: DictConfig, config_loader: ConfigLoader, launcher: Launcher
    ) -> None:
        self.settings, self.config, self.config_loader, self.launcher = settings, config, config_loader, launcher

    def run(self, arguments: list[str]) -> None:
        """Launch trials until the study has all of them, and write the report.

        Args:
            arguments: the overrides that the user typed, with and without ranges.

        Raises:
            CompactHydraException: trials failed (the message names them), or a range or the study can't be used.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        with compact_errors():
            fixed, space = self._space(arguments)
        # Settings that can't be composed are refused before the study is made.
        values = [f"{key}={any_value(distribution)}" for key, distribution in space.items()]
        self.config_loader.load_sweep_config(self.config, [*fixed, *values])
        with compact_errors():
            mode = mode_of(self.config.monitor)
            if self.config.mode != mode:
                raise ValueError(
                    f"mode={self.config.mode!r} with monitor={self.config.monitor!r}: expected {mode!r}, or the search "
                    "would look for the worst settings; leave mode out, which follows monitor"
                )
            direction = StudyDirection[f"{mode}imize".upper()]
            study = SharedStudy(self.settings, direction=direction, fixed=fixed, space=space)
        fail_fast = bool(OmegaConf.select(self.config, "hydra.launcher.fail_fast"))
        command = self._command(fixed)
        failed = []
        with study.at_work():
            while trials := study.next_trials(self.settings.n_jobs):
                failed += self._launch(study, trials, fixed)
                write_report(study, command)
                if failed and fail_fast:
                    break
        if best := write_report(study, command):
            log.info("%s\nthe best trial's command: %s", study.states(), best)
        if failed:
            raise JobsFailedError("\n".join(["error: trials failed:", *failed]))

    def _space(self, arguments: list[str]) -> tuple[list[str], dict[str, BaseDistribution]]:
        """Return the overrides without a range, and the distributions of those with one, by key.

        A range that the configuration has for a setting of the loss is left out if the chosen loss has no such setting.

        Raises:
            ValueError: a range is not valid, or there is none.
        """
        parser = OverridesParser.create(config_loader=self.config_loader)
        fixed, space = dict[str, str](), dict[str, BaseDistribution]()
        # The user's arguments come last, so that they replace ranges of the configuration.
        for override in parser.parse_overrides([*self.settings.ranges, *arguments]):
            key = override.get_key_element()
            fixed.pop(key, None)
            space.pop(key, None)
            if override.is_sweep_override():
                space[key] = distribution_of(override)
            else:
                fixed[key] = key + "=" + override.get_value_element_as_str()
        chosen = self.config_loader.load_sweep_config(self.config, list(fixed.values()))
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

    def _command(self, fixed: list[str]) -> list[str]:
        """Return the words of the command of one run, with the settings that all trials share."""
        options = config_options(self.config.hydra)
        return [*typed_program(), *options, *(a for a in fixed if not a.startswith("search="))]

    def _launch(self, study: SharedStudy, trials: list[Trial], fixed: list[str]) -> list[str]:
        """Launch trials, tell the study how they ended, and return a message for each that failed."""
        failed = []
        overrides = [[*fixed, *self._overrides(trial)] for trial in trials]
        with study.beating(trials):
            returns = self.launcher.launch(overrides, initial_job_idx=trials[0].number)
        for trial, returned in zip(trials, returns, strict=True):
            if isinstance(returned._return_value, JobNotRunError):
                continue  # the next start of the search takes it over
            score = returned._return_value if returned.status == JobStatus.COMPLETED else None
            if score is None or math.isnan(score):
                score = None
                failed.append(f"trial {trial.number}, see {self.settings.folder / str(trial.number)}")
            study.tell(trial, score)
        return failed

    def _overrides(self, trial: Trial) -> list[str]:
        settings = self.settings
        overrides = [f"{key}={value}" for key, value in trial.params.items()]
        overrides += [f"hydra.sweep.subdir={trial.number}", f"run.group={quoted(settings.study)}"]
        if settings.pruning:
            pruning = {
                "_target_": "ptmt_lightning.search.pruning.Pruning", "storage": self._storage_reference(),
                "study": settings.study, "trial": trial.number, "monitor": self.config.monitor, **settings.pruning,
            }  # fmt: skip
            overrides += [f"+callbacks.pruning.{key}={quoted(value)}" for key, value in pruning.items()]
        return overrides

    def _storage_reference(self) -> str:
        """Return the storage's URL for command lines of trials, or a reference to it if it holds a password."""
        url = self.settings.storage_url
        return in_environment("hydra.sweeper.storage", url) if is_secret("storage", url) else url
