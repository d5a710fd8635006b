"""Callbacks that collect what is needed when a run ends: scores, predictions, seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import lightning as L
import torch
from torch import Tensor

from ptmt_lightning.metrics import MetricValues
from ptmt_lightning.models.base import HTCModel
from ptmt_lightning.run_folder.prediction import DocumentPrediction, document_predictions
from ptmt_lightning.training.fit_rule import uncalibrated_counts
from ptmt_lightning.training.resuming import length_of

AnyCallback = TypeVar("AnyCallback", bound=L.Callback)


@contextmanager
def attached(trainer: L.Trainer, callback: AnyCallback) -> Iterator[AnyCallback]:
    """Add a callback to the trainer for as long as the block lasts."""
    trainer.callbacks.append(callback)  # type: ignore[attr-defined]
    try:
        yield callback
    finally:
        trainer.callbacks.remove(callback)  # type: ignore[attr-defined]


def _gathered(trainer: L.Trainer, share: list[Any]) -> list[Any]:
    """Return the lists of all ranks as one, on each rank."""
    shares = [share] * trainer.world_size
    if trainer.world_size > 1:
        torch.distributed.all_gather_object(shares, share)
    return [item for share in shares for item in share]


class RunRecord(L.Callback):
    """Keeps the seconds of fitting, over all legs of a resumed run, and the scores of the last validation.

    Both are saved in checkpoints, with how long the run is to be. The scores of a run are those in its best checkpoint.
    """

    def __init__(self) -> None:
        self.val_results: dict[str, float] = {}
        self._earlier_seconds = 0.0
        self._started = time.perf_counter()

    def start(self) -> None:
        """Start the clock of this leg, that is, of what is trained since the run was started or resumed."""
        self._started = time.perf_counter()

    @property
    def fit_seconds(self) -> float:
        """Wall time of fitting in all legs so far."""
        return self._earlier_seconds + time.perf_counter() - self._started

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the scores of this validation."""
        assert isinstance(pl_module, HTCModel)
        if not trainer.sanity_checking:
            self.val_results = pl_module.val_metrics.compute().values

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the record into a checkpoint."""
        checkpoint |= {
            "val_results": self.val_results, "fit_seconds": self.fit_seconds, "length": length_of(trainer)
        }  # fmt: skip

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take the record over from a checkpoint."""
        self.val_results, self._earlier_seconds = checkpoint["val_results"], checkpoint["fit_seconds"]


class ScoreCollector(L.Callback):
    """Keeps the scores and the true nodes of a validation, on the CPU."""

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, Tensor]] = []

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keep the scores and the true nodes of a batch."""
        self._batches.append((outputs["logits"].cpu(), outputs["targets"].cpu()))

    def gather(self, trainer: L.Trainer) -> tuple[Tensor, Tensor]:
        """Return scores (logits) and true nodes, ``[N, V]`` each, of the ``N`` documents of all ranks."""
        logits, targets = zip(*_gathered(trainer, self._batches), strict=True)
        return torch.cat(logits), torch.cat(targets)


class PredictionCollector(L.Callback):
    """Keeps the predictions and the metrics of a test."""

    metrics: MetricValues | None = None  # None until a test has ended

    def __init__(self) -> None:
        self._predictions: list[DocumentPrediction] = []
        self._uncalibrated: list[Tensor] = []

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Keep the predicted and the true nodes of each document, with their probabilities."""
        scored = (outputs[name] for name in ("predicted", "probabilities", "targets"))
        self._predictions += document_predictions(outputs["rows"].tolist(), *scored)
        assert isinstance(pl_module, HTCModel)
        if pl_module.rule.calibration is not None:
            self._uncalibrated.append(uncalibrated_counts(pl_module.rule, outputs["logits"], outputs["targets"]).cpu())

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the metrics of the test."""
        assert isinstance(pl_module, HTCModel)
        self.metrics = pl_module.test_metrics.compute()

    def gather(self, trainer: L.Trainer) -> list[DocumentPrediction]:
        """Return the predictions for the documents of all ranks, by row."""
        return sorted(_gathered(trainer, self._predictions), key=lambda prediction: prediction.row)

    def gather_uncalibrated(self, trainer: L.Trainer) -> Tensor | None:
        """Return the uncalibrated counts of the documents of all ranks; None without calibration."""
        counts = _gathered(trainer, self._uncalibrated)
        return torch.stack(counts).sum(dim=0) if counts else None
