"""A run that goes on: from its newest checkpoint, for as long as it was to be or longer, wherever its folder is now."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning_utilities.core.rank_zero import rank_zero_only
from omegaconf import OmegaConf
from torch.optim.lr_scheduler import LambdaLR

from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.models.base import HTCModel
from ptmt_lightning.run_folder.checkpoint_files import newest
from ptmt_lightning.run_folder.paths import LENGTHS, RunFolder, moved_paths
from ptmt_lightning.training.loggers import RunCSVLogger

log = logging.getLogger(__name__)


def length_of(trainer: L.Trainer) -> dict[str, int | None]:
    """Return how long a run is to be: the settings of :data:`~ptmt_lightning.run_folder.paths.LENGTHS`."""
    return dict(zip(LENGTHS, (trainer.max_epochs, trainer.max_steps), strict=True))


def check_further(setting: str, value: int | None, done: int | None) -> None:
    """Refuse a length that a run has reached already.

    Args:
        setting: one of :data:`~ptmt_lightning.run_folder.paths.LENGTHS`.
        value: number of epochs or steps; None or -1 for no limit.
        done: how many of them the run has done; None if that is not known.

    Raises:
        ValueError: the run would not train any further.
    """
    if value is not None and done is not None and 0 <= value <= done:
        unit = setting.rpartition("_")[2]
        raise ValueError(f"{setting}={value}: the run has done {done} {unit}; set it to more, or to -1 for no limit")


def prepare_to_resume(trainer: L.Trainer, datamodule: HTCDataModule, model: HTCModel, folder: RunFolder) -> Path:
    """Return the checkpoint to go on from, after checks; set data, curves and callbacks back to where it was written.

    Raises:
        ValueError: no checkpoint can be read, it is of other data, labels or tokens, or the run is to be of another
            length which it has reached already. Nothing has been changed then.
    """
    # Lightning warns of a loader that can't resume within an epoch; it does not see that the sampler can.
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable")
    checkpoint, content = newest(folder)
    model.on_load_checkpoint(content)
    if state := content.get(type(datamodule).__qualname__):
        datamodule.load_state_dict(state)
    before, now = content.get("length") or _written_length(folder), length_of(trainer)
    progress = content["loops"]["fit_loop"]
    if before != now:
        epochs = progress["epoch_progress"]["current"]["processed"] - _ended_within_an_epoch(progress)
        done = (epochs, content["global_step"])
        for (setting, value), count in zip(now.items(), done, strict=True):
            check_further(setting, value, count)
    if trainer.is_global_zero:
        folder.remove_leftovers()
    datamodule.start_at(content["epoch"], progress["epoch_loop.batch_progress"]["current"]["processed"])
    for curves in trainer.loggers:
        if isinstance(curves, RunCSVLogger):
            curves.rewind(content["global_step"])
    trainer.callbacks.insert(0, _GoesOn(before))  # type: ignore[attr-defined]
    return checkpoint


def _written_length(folder: RunFolder) -> dict[str, int | None]:
    """Return how long a run was to be by its configuration, as checkpoints of versions before 0.2 do not say."""
    config = OmegaConf.load(folder.config)
    return {setting: OmegaConf.select(config, setting) for setting in LENGTHS}


class _GoesOn(L.Callback):
    """Puts what a checkpoint says of paths, rate and early stopping right for a run that was moved or made longer.

    Args:
        before: how long the run was to be, as :func:`length_of` tells it.
    """

    def __init__(self, before: Mapping[str, int | None]) -> None:
        self.before = before

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let callbacks find their checkpoints where the run's folder is now; begin where the run really stopped."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            state = checkpoint["callbacks"].get(callback.state_key)
            if isinstance(callback, ModelCheckpoint) and state and state["dirpath"] != callback.dirpath:
                checkpoint["callbacks"][callback.state_key] = moved_paths(
                    state, state["dirpath"], str(callback.dirpath)
                )

        progress = checkpoint["loops"]["fit_loop"]
        if self.before != length_of(trainer) and _ended_within_an_epoch(progress):
            _undo_the_end(progress)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the rate from the schedule of the present length; end here if early stopping had ended the run."""
        is_longer = self.before != length_of(trainer)
        tell = rank_zero_only(log.info)
        loop = trainer.fit_loop
        if loop.restarted_on_epoch_end:  # else with max_steps Lightning counts an epoch more, without training it
            loop._restarting = loop.epoch_loop.restarting = False
            loop.reset()
        if is_longer:
            self._reschedule(trainer, tell)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping) and callback.wait_count >= max(1, callback.patience):
                if is_longer:
                    callback.wait_count = 0
                    tell("early stopping had ended the run; it counts its %d epochs anew", callback.patience)
                else:  # the process ended between that and the result
                    trainer.should_stop = True

    def _reschedule(self, trainer: L.Trainer, tell: Callable[..., object]) -> None:
        """Compute the present rate anew: the one in the checkpoint is that of the other length, at its end 0."""
        for scheduler in (config.scheduler for config in trainer.lr_scheduler_configs):
            if not isinstance(scheduler, LambdaLR):
                continue
            shares = [share(scheduler.last_epoch) for share in scheduler.lr_lambdas]
            rates = [base * share for base, share in zip(scheduler.base_lrs, shares, strict=True)]
            for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            scheduler._last_lr = rates
            before = self.before
            changes = (f"{k}={now} (was {before[k]})" for k, now in length_of(trainer).items() if now != before[k])
            tell(
                "goes on with %s: the optimiser's state is kept, the learning rate follows the schedule of the new "
                "length, from %.2g at step %d on",
                ", ".join(changes), rates[0], trainer.global_step,
            )  # fmt: skip


def _ended_within_an_epoch(progress: Mapping[str, Any]) -> bool:
    """Return whether a run ended, by its number of steps or by early stopping, before the epoch's last batch.

    Args:
        progress: what a checkpoint holds of Lightning's ``FitLoop``, where that epoch counts as done.
    """
    epochs, batches = progress["epoch_progress"]["current"], progress["epoch_loop.batch_progress"]
    return epochs["processed"] == epochs["ready"] and not batches["is_last_batch"]


def _undo_the_end(progress: dict[str, Any]) -> None:
    """Change what a checkpoint holds of a run that ended within an epoch to what it would hold of one on its way."""
    for scope in ("total", "current"):
        progress["epoch_progress"][scope]["processed"] -= 1
        progress["epoch_loop.batch_progress"][scope]["completed"] -= 1
    progress["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
