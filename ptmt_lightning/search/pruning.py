"""Bad trials of a search end at the end of an epoch."""

from __future__ import annotations

import itertools
import logging
import math
import re
import time

import lightning as L
import optuna
from optuna.pruners import SuccessiveHalvingPruner
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import Trial
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError, SQLAlchemyError

log = logging.getLogger(__name__)

PRUNED = "pruned_after_epoch"  # attribute of a trial
HEARTBEAT_SECONDS = 60


def open_storage(url: str) -> RDBStorage:
    """The storage of studies at ``url``.

    Raises:
        ValueError: it can't be opened.
    """
    wait = {"connect_args": {"timeout": 120}} if url.startswith("sqlite") else {}  # seconds, for another's lock
    for attempt in itertools.count(1):
        try:
            return RDBStorage(
                url,
                engine_kwargs=wait,
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=5 * HEARTBEAT_SECONDS,
            )
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            if attempt == 4:
                raise _unusable(url, error) from error
            time.sleep(1)  # another machine may be making the tables of a new database
        except (ImportError, SQLAlchemyError) as error:
            raise _unusable(url, error) from error
    raise AssertionError


def _unusable(url: str, error: Exception) -> ValueError:
    shown = re.sub(r"://([^:/@]*):[^@]*@", r"://\1:***@", url)
    return ValueError(
        f"hydra.sweeper.storage={shown}: {str(error).splitlines()[0]}; expected a URL of SQLAlchemy, as "
        "postgresql://USER@HOST/DATABASE, with the package that it needs installed"
    )


class Pruning(L.Callback):
    """Reports the best score so far to an Optuna study after each epoch; ends training where the study says so.

    Successive halving (Li et al. 2020, ASHA). The first rank asks, all do as it is told.

    Args:
        storage: URL of the study's storage.
        trial: number in the study.
        monitor: metric.
        min_epochs: before the first decision.
        reduction_factor: of so many trials that reach a decision one goes on.
    """

    def __init__(
        self, *, storage: str, study: str, trial: int, monitor: str, min_epochs: int, reduction_factor: int
    ) -> None:
        self.storage, self.study, self.trial, self.monitor = storage, study, trial, monitor
        self.pruner = SuccessiveHalvingPruner(min_resource=min_epochs, reduction_factor=reduction_factor)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A run that was pruned, then cut off, does not train on."""
        pruned = PRUNED in self._trial().user_attrs if trainer.is_global_zero else False
        if trainer.strategy.broadcast(pruned):
            trainer.should_stop = True

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        pruned = self._is_pruned(trainer) if trainer.is_global_zero else False
        if trainer.strategy.broadcast(pruned):
            trainer.should_stop = True

    def _is_pruned(self, trainer: L.Trainer) -> bool:
        trial = self._trial()
        epoch = trainer.current_epoch + 1
        known = trial.storage.get_trial(trial._trial_id).intermediate_values
        if epoch not in known:  # else the run was resumed
            score = trainer.callback_metrics[self.monitor].item()
            better = max if trial.study.direction == StudyDirection.MAXIMIZE else min
            scores = [value for value in (score, *known.values()) if not math.isnan(value)]
            trial.report(better(scores, default=math.nan), epoch)
        if not trial.should_prune():
            return False
        trial.set_user_attr(PRUNED, epoch)
        log.info("pruned after epoch %d: other trials of study %s do better", epoch, self.study)
        return True

    def _trial(self) -> Trial:
        study = optuna.load_study(study_name=self.study, storage=open_storage(self.storage), pruner=self.pruner)
        return Trial(study, study.get_trials(deepcopy=False)[self.trial]._trial_id)
