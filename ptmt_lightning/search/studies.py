"""Studies that can be killed and resumed, and that several processes and machines share."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, lock_descriptor
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from ptmt_lightning.search.ranges import suggest
from ptmt_lightning.search.settings import SearchSettings
from ptmt_lightning.search.storage import HEARTBEAT_SECONDS, PRUNED, open_storage

log = logging.getLogger(__name__)


class SharedStudy:
    """An Optuna study that several processes and machines can work on; all of its state is in its storage.

    Trials of a process that was killed are taken over, with their settings and numbers. The random numbers of a trial
    depend only on the seed and the trial's number.

    Args:
        settings: settings of the search; their folder, on this machine, also holds lock files.
        direction: whether the score is to be maximised or minimised.
        fixed: overrides that all trials have.
        space: distribution of each setting that is searched, by key.

    Raises:
        ValueError: the storage can't be opened, or has a study of that name with other settings.
    """

    def __init__(
        self,
        settings: SearchSettings,
        *,
        direction: StudyDirection,
        fixed: list[str],
        space: Mapping[str, BaseDistribution],
    ) -> None:
        self.settings, self.space = settings, space
        settings.folder.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(settings.folder / ".study.lock")
        self._owner = secrets.token_hex(8)
        with self.lock:
            self.study = optuna.create_study(
                study_name=settings.study,
                storage=open_storage(settings.storage_url),
                direction=direction,
                load_if_exists=True,
            )
            self._storage: Any = self.study._storage  # a wrapper that caches what it has read
            fixed = [argument for argument in fixed if not argument.startswith("keep_checkpoints=")]
            wanted = {"fixed": fixed, "space": {key: distribution_to_json(space[key]) for key in space}}
            stored = self.study.user_attrs
            for name, value in wanted.items():
                if stored.get(name, value) != value:
                    raise ValueError(
                        f"hydra.sweeper.study={settings.study}: that study has other settings ({name}: {stored[name]}, "
                        f"here {value}); repeat its command, or choose another name"
                    )
                self.study.set_user_attr(name, value)
        if self.study.trials:
            log.info("study %s goes on: %s", settings.study, self.states())

    def states(self) -> dict[str, int]:
        """Return the number of trials in each state, by the state's name in lower case."""
        states = [trial.state.name.lower() for trial in self.study.get_trials(deepcopy=False)]
        return {state: states.count(state) for state in sorted(set(states))}

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Hold a lock within this block; by it, other processes on this machine see that the trials are at work."""
        with self._owner_file(self._owner).open("w", encoding="utf-8") as alive:
            lock_descriptor(alive.fileno())
            yield
        if not self._has_open_trials():  # otherwise the file stays, unlocked: others take the open trials over
            self._owner_file(self._owner).unlink()

    def next_trials(self, number: int) -> list[Trial]:
        """Return up to ``number`` trials to run: first those that killed processes left, then new ones."""
        with self.lock:
            known = self.study.get_trials(deepcopy=False)
            running = [trial for trial in known if trial.state == TrialState.RUNNING]
            stale = self._storage._get_stale_trial_ids(self.study._study_id) if running else []
            taken = [trial._trial_id for trial in running if self._is_abandoned(trial, stale)][:number]
            for trial_id in taken:
                self._storage.set_trial_user_attr(trial_id, "owner", self._owner)
            template = create_trial(state=TrialState.RUNNING, user_attrs={"owner": self._owner})
            for _ in range(len(known), min(len(known) + number - len(taken), self.settings.n_trials)):
                taken.append(self._storage.create_new_trial(self.study._study_id, template))
            trials = [self._drawn(trial_id, len(known)) for trial_id in taken]
        return [trial for trial in trials if trial is not None]

    def _drawn(self, trial_id: int, num_known: int) -> Trial | None:
        """Return a trial after its settings are drawn; None if the study has all of its trials without it."""
        self._storage.record_heartbeat(trial_id)
        number = self._storage.get_trial(trial_id).number
        if number >= self.settings.n_trials:  # another machine has made the last trial meanwhile
            self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
            return None
        # A generator of its own for each trial: a resumed study draws what an uninterrupted one would have, and two
        # processes don't draw the same.
        self.study.sampler = _sampler(self.settings.sampler, self.settings.seed * 1_000_003 + number)
        trial = Trial(self.study, trial_id)
        for key, distribution in self.space.items():
            suggest(trial, key, distribution)
        what = " ".join(f"{key}={value}" for key, value in trial.params.items())
        log.info("trial %d%s: %s", number, ", left by another" if number < num_known else "", what)
        return trial

    @contextlib.contextmanager
    def beating(self, trials: list[Trial]) -> Iterator[None]:
        """Send signs of life for the trials within this block, so that other machines do not take them over."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(HEARTBEAT_SECONDS):
                for trial in trials:
                    with contextlib.suppress(optuna.exceptions.StorageInternalError):  # the next beat tries again
                        self._storage.record_heartbeat(trial._trial_id)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def tell(self, trial: Trial, score: float | None) -> None:
        """Tell the study how a trial ended: with a score, or with None if it failed."""
        if score is None:
            self.study.tell(trial, state=TrialState.FAIL)
        elif PRUNED in self._storage.get_trial(trial._trial_id).user_attrs:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, score)

    def _is_abandoned(self, trial: FrozenTrial, stale: list[int]) -> bool:
        """Return whether the process of a trial is gone: by its lock, or from elsewhere by missing signs of life."""
        owner = trial.user_attrs["owner"]
        path = self._owner_file(owner)
        if owner == self._owner or not path.exists():
            return trial._trial_id in stale
        with path.open(encoding="utf-8") as file:
            return lock_descriptor(file.fileno(), blocking=False)

    def _has_open_trials(self) -> bool:
        return any(
            trial.state == TrialState.RUNNING and trial.user_attrs["owner"] == self._owner
            for trial in self.study.get_trials(deepcopy=False)
        )

    def _owner_file(self, owner: str) -> Path:
        return self.settings.folder / f".{owner}.lock"


def _sampler(name: str, seed: int) -> BaseSampler:
    match name:
        case "gp":
            return GPSampler(seed=seed)
        case "tpe":
            # constant_liar: a running trial counts as a bad one, so that the next one tries something else.
            return TPESampler(seed=seed, multivariate=True, constant_liar=True)
        case "random":
            return RandomSampler(seed=seed)
    raise AssertionError(name)
