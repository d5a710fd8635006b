"""Callbacks that log speed, gradients and memory, and a line an epoch."""

from __future__ import annotations

import logging
import math
import sys
import time
from typing import Any

import lightning as L
import torch
from torch.nn.utils import get_total_norm

from ptmt_lightning.models.batch import Batch

log = logging.getLogger(__name__)


class Throughput(L.Callback):
    """Logs how many documents and text tokens all devices together process in a second.

    The clock runs from one logging step to the next; validation is left out.
    """

    def __init__(self) -> None:
        self._documents = self._tokens = 0
        self._since = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restart count and clock: the time between epochs is not training."""
        self._restart()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Count the documents and tokens of a batch, and log the rates at a logging step."""
        self._documents += len(batch.rows)
        self._tokens += batch.num_text_tokens
        if _is_logged(trainer, trainer.global_step):
            if pl_module.device.type == "cuda":
                torch.cuda.synchronize(pl_module.device)
            scale = trainer.world_size / (time.perf_counter() - self._since)
            rates = {"documents_per_second": self._documents * scale, "tokens_per_second": self._tokens * scale}
            pl_module.log_dict({f"train/{name}": rate for name, rate in rates.items()}, batch_size=len(batch.rows))
            self._restart()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restart count and clock: validation is not training."""
        self._restart()

    def _restart(self) -> None:
        self._documents = self._tokens = 0
        self._since = time.perf_counter()


class Vitals(L.Callback):
    """Logs the norm of all gradients before they are clipped, and the peak of memory use in GiB.

    On a GPU, that is the memory of tensors; otherwise, the resident set of the first process.
    """

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Log both values, at logging steps only."""
        if _is_logged(trainer, trainer.global_step + 1):
            gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
            pl_module.log("train/gradient_norm", get_total_norm(gradients))
            pl_module.log("train/memory_gib", _peak_memory(pl_module.device) / 2**30)


class EpochLog(L.Callback):
    """Logs a line at the end of each epoch, with or without a terminal: score, loss, rates, the time that is left."""

    def __init__(self) -> None:
        self._since = 0.0
        self._first_step = self._num_batches = 0
        self._loss: torch.Tensor | float = 0.0  # sum over the epoch's batches so far

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Add up the loss; a GPU is not waited for."""
        self._loss = self._loss + outputs["loss"].detach() * trainer.accumulate_grad_batches  # Lightning divides by it
        self._num_batches += 1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of this leg of the training."""
        self._since, self._first_step = time.monotonic(), trainer.global_step

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the line, on the first rank only."""
        loss, self._loss = float(self._loss) / max(1, self._num_batches), 0.0
        self._num_batches = 0
        if not trainer.is_global_zero:
            return
        logged = trainer.callback_metrics
        saved = trainer.checkpoint_callback
        monitor = getattr(saved, "monitor", None)
        parts = [f"epoch {trainer.current_epoch + 1}" + (f"/{trainer.max_epochs}" if trainer.max_epochs else "")]
        if monitor in logged:
            better = min if saved.mode == "min" else max  # type: ignore[union-attr]
            score, before = logged[monitor].item(), saved.best_model_score  # type: ignore[union-attr]
            best = score if before is None else better(score, before.item())
            parts.append(f"{monitor} {score:.4f} (best {best:.4f})")
        parts.append(f"loss {loss:.4g}")
        names = {"train/learning_rate": "learning rate {:.2g}", "train/documents_per_second": "{:.0f} documents/s"}
        parts += [text.format(logged[name].item()) for name, text in names.items() if name in logged]
        if left := self._time_left(trainer):
            parts.append(f"{left} left")
        log.info("%s", ", ".join(parts))

    def _time_left(self, trainer: L.Trainer) -> str | None:
        """Return how long the rest takes at most, at the pace so far; None where there is no rest, or no end."""
        done, total = trainer.global_step - self._first_step, trainer.estimated_stepping_batches
        rest = total - trainer.global_step
        if done <= 0 or rest <= 0 or not math.isfinite(total):
            return None
        seconds = round((time.monotonic() - self._since) / done * rest)
        return f"{seconds // 3600}:{seconds % 3600 // 60:02}:{seconds % 60:02}"


def _peak_memory(device: torch.device) -> int:
    """Return the largest memory use since the process began, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        import psutil  # knows the peak on Windows only

        peak: int = psutil.Process().memory_info().peak_wset
        return peak
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024  # bytes in the unit of getrusage
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _is_logged(trainer: L.Trainer, step: int) -> bool:
    """Return whether Lightning writes what is logged at the step that brings the number of steps to ``step``."""
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return every > 0 and step % every == 0
