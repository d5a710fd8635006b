"""Callbacks of our own."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch

from ptmt_lightning.models.classifier import Batch


class Throughput(L.Callback):
    """Logs documents and text tokens a second over all devices.

    The clock runs from logging step to logging step, validation left out.
    """

    def __init__(self) -> None:
        self._documents = self._tokens = 0
        self._since = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._documents += len(batch.rows)
        self._tokens += batch.num_text_tokens
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            scale = trainer.world_size / (time.perf_counter() - self._since)
            rates = {"documents_per_second": self._documents * scale, "tokens_per_second": self._tokens * scale}
            pl_module.log_dict({f"train/{name}": rate for name, rate in rates.items()}, batch_size=len(batch.rows))
            self._restart()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restart()

    def _restart(self) -> None:
        self._documents = self._tokens = 0
        self._since = time.perf_counter()
