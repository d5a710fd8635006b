"""Checkpoints from which a run can always be resumed: whole or absent, written often and when the process must end.

``last.ckpt`` is the newest, ``previous.ckpt`` the one before it, ``best.ckpt`` that of the best validation, which has
no state of the optimiser, as no run goes on from it.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ptmt_lightning.run_folder.paths import BEST_CHECKPOINT, LAST_CHECKPOINT, PREVIOUS_CHECKPOINT
from ptmt_lightning.utils.checks import check_range
from ptmt_lightning.utils.errors import system_error

log = logging.getLogger(__name__)


class WholeCheckpointIO(TorchCheckpointIO):
    """Writes under a temporary name beside the file, then renames; the old ``last.ckpt`` becomes ``previous.ckpt``."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Write ``checkpoint`` to ``path``, whole or not at all.

        Raises:
            ValueError: the file can't be written, as on a full disk; earlier checkpoints stay as they are.
        """
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}")
        if target.name == BEST_CHECKPOINT:  # no run goes on from it: without the optimiser it takes a third
            unneeded = ("optimizer_states", "lr_schedulers", "loops")
            checkpoint = {key: value for key, value in checkpoint.items() if key not in unneeded}
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:  # torch turns a failed write into a RuntimeError
            temporary.unlink(missing_ok=True)
            raise ValueError(
                f"{target}: the checkpoint could not be written ({_reason(error)}); free space on that disk, then go "
                f"on with resume={target.parent.parent}"
            ) from error
        if target.name == LAST_CHECKPOINT and target.exists():
            target.replace(target.with_name(PREVIOUS_CHECKPOINT))
        temporary.replace(target)


def _reason(error: Exception) -> str:
    """Return why a checkpoint was not written; torch's own message tells where in its code it noticed."""
    return (system_error(error) or str(error)).split(";")[0]


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt``: at the end of each epoch, every few minutes, and when the process is told to end (SIGTERM).

    Nothing is saved between a step and the validation that follows it: a run resumed from there would miss that
    validation and all that depends on it. A run that is told to end just then is resumed from the checkpoint before.

    Args:
        dirpath: the folder of checkpoints.
        every_minutes: minutes between two checkpoints within an epoch.
        check_every: the number of steps after which the clock is looked at again.

    Raises:
        ValueError: a setting is out of its range.
    """

    def __init__(self, dirpath: str, *, every_minutes: float = 10, check_every: int = 10) -> None:
        check_range("callbacks.last_checkpoint.every_minutes", every_minutes, 0)
        check_range("callbacks.last_checkpoint.check_every", check_every, 1, integer=True)
        self.path = Path(dirpath) / LAST_CHECKPOINT
        self.every_minutes, self.check_every = every_minutes, check_every
        self._since = time.monotonic()
        self._validation_due = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._since = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save a checkpoint if it is time for one and no validation follows this step."""
        every = trainer.val_check_batch
        self._validation_due = trainer.is_last_batch or (every is not None and (batch_idx + 1) % every == 0)
        if self._validation_due or trainer.global_step % self.check_every:
            return
        due = time.monotonic() - self._since >= 60 * self.every_minutes
        if trainer.strategy.broadcast(due):  # clocks of ranks differ
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save a checkpoint."""
        self._save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save a checkpoint if training was told to end (SIGTERM), and say how to resume it, as after Ctrl-C."""
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero and self.path.exists():
            log.warning("interrupted; go on from the newest checkpoint with resume=%s", self.path.parents[1])
        if not isinstance(exception, SIGTERMException) or trainer.state.fn != "fit":
            return
        if not self._validation_due:
            self._save(trainer)
        if trainer.is_global_zero:
            log.warning(
                "told to end (SIGTERM) at step %d; go on with resume=%s", trainer.global_step, self.path.parents[1]
            )

    def _save(self, trainer: L.Trainer) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self.path)
            self._since = time.monotonic()
