"""Hydra sweeper ``optuna``: a search over settings that can be killed, resumed, and shared by several machines.

``-m hydra/sweeper=optuna`` with a range for each setting to be searched, on the command line in Hydra's own grammar
(``loss.margin=interval(0.02,0.1)``, ``'optimizer.learning_rate=tag(log,interval(1e-6,1e-2))'``, ``choice(a,b)``,
``range(2,11)``) or in ``hydra.sweeper.params``.
"""

import contextlib
import fcntl
import logging
import math
import secrets
import shlex
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobStatus
from hydra.errors import CompactHydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from ptmt_lightning.checks import check_range
from ptmt_lightning.config import JobNotRunError, compact_errors, config_options, quoted
from ptmt_lightning.files import write_text
from ptmt_lightning.pruning import HEARTBEAT_SECONDS, PRUNED, open_storage

log = logging.getLogger(__name__)


class OptunaSweeper(Sweeper):
    """Asks an Optuna study for settings, launches them as jobs, and tells it the scores.

    The study, by default an SQLite file in its folder, is all the state there is: the same command goes on with it,
    and several processes may, at once. Trials of a process that was killed are taken over, with their settings,
    number and folder. Drawing depends on the seed and the trial's number only.

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
        if sampler not in _SAMPLERS:
            raise ValueError(f"hydra.sweeper.sampler={sampler!r}: expected one of {', '.join(_SAMPLERS)}")
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
        self.config_loader.load_sweep_config(self.master, [*fixed, *(f"{key}={_any(space[key])}" for key in space)])
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(self.folder / ".study.lock")
        # Held for the life of this process: others see by it whether the trials that it took are still at work.
        self.owner = secrets.token_hex(8)
        failed = []
        with self._owner_file(self.owner).open("w") as alive:
            fcntl.flock(alive, fcntl.LOCK_EX)
            with compact_errors():
                study = self._study(fixed, space)
            while trials := self._next_trials(study, space):
                failed += self._run(study, trials, fixed)
                self._report(study, fixed)
                if failed and self.fail_fast:
                    break
        if not self._has_open_trials(study):  # else the file tells others that they may take them; so where killed
            self._owner_file(self.owner).unlink()
        if command := self._report(study, fixed):
            log.info("%s\nthe best trial's command: %s", _states(study), command)
        if failed:
            raise CompactHydraException("\n".join(["error: trials failed:", *failed]))

    def _space(self, arguments: list[str]) -> tuple[list[str], dict[str, BaseDistribution]]:
        """The arguments without a range, and the ranges by key."""
        parser = OverridesParser.create(config_loader=self.config_loader)
        ranges = [f"{key}={value}" for key, value in self.params.items()]
        fixed, space = dict[str, str](), dict[str, BaseDistribution]()
        for override in parser.parse_overrides([*ranges, *arguments]):  # an argument replaces a range of the config
            key = override.get_key_element()
            fixed.pop(key, None)
            space.pop(key, None)
            if override.is_sweep_override():
                space[key] = _distribution(override)
            else:
                fixed[key] = key + "=" + override.get_value_element_as_str()
        if not space:
            raise ValueError(
                "hydra/sweeper=optuna: no setting with a range; add one, as in 'loss.margin=interval(0.02,0.1)', or "
                "search=ptmt"
            )
        return list(fixed.values()), space

    def _study(self, fixed: list[str], space: dict[str, BaseDistribution]) -> optuna.Study:
        with self.lock:
            study = optuna.create_study(
                study_name=self.name,
                storage=open_storage(self.storage_url),
                direction=self.direction,
                load_if_exists=True,
            )
            self.storage: Any = study._storage  # keeps what it has read
            ours = {"fixed": fixed, "space": {key: distribution_to_json(space[key]) for key in space}}
            theirs = study.user_attrs
            for what, value in ours.items():
                if theirs.get(what, value) != value:
                    raise ValueError(
                        f"hydra.sweeper.study={self.name}: that study has other settings ({what}: {theirs[what]}, "
                        f"here {value}); repeat its command, or choose another name"
                    )
                study.set_user_attr(what, value)
        if study.trials:
            log.info("study %s goes on: %s", self.name, _states(study))
        return study

    def _next_trials(self, study: optuna.Study, space: dict[str, BaseDistribution]) -> list[Trial]:
        """Up to ``n_jobs``: those that a killed process left, then new ones."""
        with self.lock:
            known = study.get_trials(deepcopy=False)
            running = [trial for trial in known if trial.state == TrialState.RUNNING]
            stale = self.storage._get_stale_trial_ids(study._study_id) if running else []
            taken = [trial._trial_id for trial in running if self._is_abandoned(trial, stale)][: self.n_jobs]
            for trial_id in taken:
                self.storage.set_trial_user_attr(trial_id, "owner", self.owner)
            template = create_trial(state=TrialState.RUNNING, user_attrs={"owner": self.owner})
            for _ in range(len(known), min(len(known) + self.n_jobs - len(taken), self.n_trials)):
                taken.append(self.storage.create_new_trial(study._study_id, template))
            trials = []
            for trial_id in taken:
                self.storage.record_heartbeat(trial_id)
                number = self.storage.get_trial(trial_id).number
                if number >= self.n_trials:  # another machine was faster
                    self.storage.set_trial_state_values(trial_id, TrialState.FAIL)
                    continue
                # A generator of its own for each trial: a resumed study draws what an uninterrupted one would have,
                # and two processes don't draw the same.
                study.sampler = _SAMPLERS[self.sampler](self.seed * 1_000_003 + number)
                trial = Trial(study, trial_id)
                for key, distribution in space.items():
                    _suggest(trial, key, distribution)
                what = " ".join(f"{key}={value}" for key, value in trial.params.items())
                log.info("trial %d%s: %s", number, ", left by another" if number < len(known) else "", what)
                trials.append(trial)
        return trials

    def _is_abandoned(self, trial: FrozenTrial, stale: list[int]) -> bool:
        """Whether the process that took it is gone: seen by its lock here, by missing heartbeats from elsewhere."""
        owner = trial.user_attrs["owner"]
        path = self._owner_file(owner)
        if owner == self.owner or not path.exists():
            return trial._trial_id in stale
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    def _has_open_trials(self, study: optuna.Study) -> bool:
        return any(
            trial.state == TrialState.RUNNING and trial.user_attrs["owner"] == self.owner
            for trial in study.get_trials(deepcopy=False)
        )

    @contextlib.contextmanager
    def _beating(self, trials: list[Trial]) -> Iterator[None]:
        """Keep other machines from taking the trials for abandoned."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT_SECONDS):
                for trial in trials:
                    self.storage.record_heartbeat(trial._trial_id)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _owner_file(self, owner: str) -> Path:
        return self.folder / f".{owner}.lock"

    def _run(self, study: optuna.Study, trials: list[Trial], fixed: list[str]) -> list[str]:
        """Launch trials and tell the study how they ended; gives those that failed, in words."""
        failed = []
        overrides = [[*fixed, *self._overrides(trial)] for trial in trials]
        with self._beating(trials):
            returns = self.jobs.launch(overrides, initial_job_idx=trials[0].number)
        for trial, returned in zip(trials, returns, strict=True):
            if isinstance(returned._return_value, JobNotRunError):
                continue  # the next start takes it up
            score = returned._return_value if returned.status == JobStatus.COMPLETED else None
            if score is None or math.isnan(score):
                study.tell(trial, state=TrialState.FAIL)
                failed.append(f"trial {trial.number}, see {self.folder / str(trial.number)}")
            elif PRUNED in self.storage.get_trial(trial._trial_id).user_attrs:
                study.tell(trial, state=TrialState.PRUNED)
            else:
                study.tell(trial, score)
        return failed

    def _overrides(self, trial: Trial) -> list[str]:
        settings = [f"{key}={value}" for key, value in trial.params.items()]
        settings += [f"hydra.sweep.subdir={trial.number}", f"run.group={quoted(self.name)}"]
        if self.pruning:
            pruning = {
                "_target_": "ptmt_lightning.pruning.Pruning", "storage": self.storage_url, "study": self.name,
                "trial": trial.number, "monitor": self.monitor, **self.pruning,
            }  # fmt: skip
            settings += [f"+callbacks.pruning.{key}={quoted(value)}" for key, value in pruning.items()]
        return settings

    def _report(self, study: optuna.Study, fixed: list[str]) -> str | None:
        """Write ``optimization_results.yaml``, ``trials.csv`` and pictures; gives the best trial's command."""
        with self.lock:
            results: dict[str, Any] = {
                "name": "optuna", "study": self.name, "direction": self.direction.name.lower(), "sampler": self.sampler,
                "trials": _states(study),
            }  # fmt: skip
            done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
            if done:
                best = study.best_trial
                arguments = [f"{key}={value}" for key, value in best.params.items()]
                arguments = [*(a for a in fixed if not a.startswith("search=")), *arguments]
                results |= {
                    "best_trial": best.number,
                    "best_value": best.value,
                    "best_params": best.params,
                    "best_folder": str(self.folder / str(best.number)),
                    "command": shlex.join(["python", "run.py", *config_options(self.master.hydra), *arguments]),
                }
                log.info("best of %d: trial %d with %g", len(done), best.number, best.value)
            write_text(self.folder / "optimization_results.yaml", OmegaConf.to_yaml(OmegaConf.create(results)))
            write_text(self.folder / "trials.csv", study.trials_dataframe().to_csv(index=False))
            if len(done) > 1:
                _draw(study, self.folder / "figures")
            return results.get("command")


def _distribution(override: Override) -> BaseDistribution:
    """Of a range in Hydra's grammar.

    Raises:
        ValueError: it is none that can be searched.
    """
    value = override.value()
    try:
        if isinstance(value, IntervalSweep):
            low, high, log_scale = value.start, value.end, "log" in value.tags
            assert low is not None
            assert high is not None
            if isinstance(low, int) and isinstance(high, int):
                return IntDistribution(low, high, log=log_scale)
            return FloatDistribution(low, high, log=log_scale)
        if isinstance(value, RangeSweep):
            values = sorted(value.range())
            if values and all(isinstance(number, int) for number in values):
                return IntDistribution(values[0], values[-1], step=abs(int(value.step)))
        choices = [str(choice) for choice in override.sweep_string_iterator()]
    except ValueError as error:
        raise ValueError(
            f"{override.input_line}: {error}; expected LOW below HIGH, and LOW above 0 with tag(log,...)"
        ) from error
    is_shuffled = getattr(value, "shuffle", False)  # in another order at each start, but the study goes by order
    return CategoricalDistribution(sorted(choices) if is_shuffled else choices)


def _any(distribution: BaseDistribution) -> Any:
    """A value of it."""
    return distribution.choices[0] if isinstance(distribution, CategoricalDistribution) else distribution.low  # type: ignore[attr-defined]


def _suggest(trial: Trial, key: str, distribution: BaseDistribution) -> None:
    match distribution:
        case FloatDistribution():
            trial.suggest_float(key, distribution.low, distribution.high, log=distribution.log)
        case IntDistribution(low=low, high=high):
            trial.suggest_int(key, low, high, step=distribution.step, log=distribution.log)
        case CategoricalDistribution():
            trial.suggest_categorical(key, distribution.choices)


def _gp(seed: int) -> BaseSampler:
    return GPSampler(seed=seed)


def _tpe(seed: int) -> BaseSampler:
    return TPESampler(seed=seed, multivariate=True, constant_liar=True)  # trials that run keep others away


def _random(seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


_SAMPLERS = {"gp": _gp, "tpe": _tpe, "random": _random}


def _states(study: optuna.Study) -> dict[str, int]:
    states = [trial.state.name.lower() for trial in study.get_trials(deepcopy=False)]
    return {state: states.count(state) for state in sorted(set(states))}


def _draw(study: optuna.Study, folder: Path) -> None:
    """Pictures of the study: history, importance of settings, parallel coordinates."""
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as pictures

    folder.mkdir(exist_ok=True)
    for name in ("optimization_history", "param_importances", "parallel_coordinate"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of few trials, or equal scores
            axes = getattr(pictures, f"plot_{name}")(study)
        axes.figure.savefig(folder / f"{name}.png", dpi=120, bbox_inches="tight")
        plt.close(axes.figure)
