"""Callbacks that log speed, gradients and memory."""

from __future__ import annotations

import sys
import time
from typing import Any

import lightning as L
import torch
from torch.nn.utils import get_total_norm

from ptmt_lightning.models.base import Batch


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
