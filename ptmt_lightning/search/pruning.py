"""Pruning of a search: a callback that ends trials with low scores early."""

from __future__ import annotations

import logging
import math

import lightning as L
import optuna
from optuna.pruners import SuccessiveHalvingPruner
from optuna.study import StudyDirection
from optuna.trial import Trial

from ptmt_lightning.search.storage import PRUNED, open_storage

log = logging.getLogger(__name__)


class Pruning(L.Callback):
    """A callback that reports the best score so far to an Optuna study after each epoch, and ends pruned trials.

    The study decides by successive halving (Li et al. 2020, ASHA). Only the first rank asks it; all ranks follow.

    Args:
        storage: URL of the study's storage.
        study: name of the study.
        trial: number of the trial in the study.
        monitor: name of the metric to report.
        min_epochs: number of epochs before the first decision.
        reduction_factor: of so many trials that reach a decision, one continues.
    """

    def __init__(
        self, *, storage: str, study: str, trial: int, monitor: str, min_epochs: int, reduction_factor: int
    ) -> None:
        self.storage, self.study, self.trial, self.monitor = storage, study, trial, monitor
        self.pruner = SuccessiveHalvingPruner(min_resource=min_epochs, reduction_factor=reduction_factor)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End the training of a resumed run whose trial was pruned before the interruption."""
        pruned = PRUNED in self._trial().user_attrs if trainer.is_global_zero else False
        if trainer.strategy.broadcast(pruned):
            trainer.should_stop = True

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the score of the epoch, and end training on all ranks if the study prunes the trial."""
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        pruned = self._is_pruned(trainer) if trainer.is_global_zero else False
        if trainer.strategy.broadcast(pruned):
            trainer.should_stop = True

    def _is_pruned(self, trainer: L.Trainer) -> bool:
        trial = self._trial()
        epoch = trainer.current_epoch + 1
        known = trial.storage.get_trial(trial._trial_id).intermediate_values
        if epoch not in known:  # a resumed run may have reported it already
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
