"""What all systems share: optimisation, prediction, metrics and logging.

Shape legend: ``B`` documents, ``V`` nodes, ``D`` levels.
"""

from __future__ import annotations

import json
import math
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

import ptmt_lightning
from ptmt_lightning.backbones import Backbone, quiet_transformers
from ptmt_lightning.data.document import Example
from ptmt_lightning.losses import LabelLoss
from ptmt_lightning.metrics import Classes, HierarchicalMetrics
from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.run_folder.prediction import DocumentPrediction
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.thresholds import Tuning
from ptmt_lightning.utils.checks import check_range


class Batch(Protocol):
    """What every system's batches have."""

    @property
    def rows(self) -> Tensor: ...  # int64 [B], rows of the split

    @property
    def targets(self) -> Tensor: ...  # bool [B, V]

    @property
    def num_text_tokens(self) -> int: ...


class HTCModel(L.LightningModule):
    """Base of all systems.

    A system says how its batches are made (:meth:`collator`), what it is trained on (:meth:`loss_terms`) and how it
    scores nodes (:meth:`forward`).

    Args:
        max_length: longest sequence, in tokens.
        label_loss: also names the decision, what probabilities the scores mean.
        threshold: a node is predicted above this probability; a number, or a list with one a level.
        tune_threshold: choose other ones on validation after training: one for all levels (``global``), or one a
            level (``level``).
        prune: drop predicted nodes below level 1 without a predicted parent.
        coherent: score a node no higher than its parent, in training and in prediction.
        metric_classes: the classes that macro averages run over: ``present`` ones or ``all``.
        seed: of the masks and of dropout.
    """

    system: str  # names the file of settings in an exported folder

    def __init__(
        self,
        *,
        taxonomy: Taxonomy,
        backbone: Backbone,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        label_loss: LabelLoss,
        optimizer: LinearAdamW,
        threshold: float | Sequence[float] = 0.5,
        tune_threshold: Tuning | None = None,
        prune: bool = True,
        coherent: bool = False,
        metric_classes: Classes = "present",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if tune_threshold not in (None, "global", "level"):
            raise ValueError(f"model.tune_threshold={tune_threshold!r}: expected null, 'global' or 'level'")
        if tune_threshold and label_loss.decision.single_label:
            raise ValueError(
                f"model.tune_threshold={tune_threshold}: loss={type(label_loss).__name__} predicts the best label of "
                "a level, without a threshold; set model.tune_threshold=null"
            )
        if coherent and label_loss.decision.single_label:
            raise ValueError(
                f"model.coherent=true: loss={type(label_loss).__name__} compares the labels of a level with each "
                "other; set model.coherent=false, or loss=wasl or loss=bce"
            )
        self.taxonomy, self.backbone, self.tokenizer = taxonomy, backbone, tokenizer
        self.max_length, self.label_loss, self.optimizer = max_length, label_loss, optimizer
        self.decision = label_loss.decision
        self.thresholds = _thresholds(threshold, taxonomy.num_levels)
        self.tune_threshold, self.prune, self.coherent, self.seed = tune_threshold, prune, coherent, seed
        self.val_metrics = HierarchicalMetrics(taxonomy, classes=metric_classes)
        self.test_metrics = HierarchicalMetrics(taxonomy, classes=metric_classes)
        self.val_scores: list[tuple[Tensor, Tensor]] | None = None  # where a list: probabilities and targets, by batch
        self.val_results: dict[str, float] = {}  # of the last validation, or of the loaded checkpoint's
        self.fit_started = time.perf_counter()
        self._earlier_seconds = 0.0  # of fitting, before a run was resumed
        self.test_results: dict[str, float] = {}
        self.test_counts = torch.empty(0)  # flat counts, see metrics.per_label
        self.test_scored = torch.empty(0)  # see metrics.reliability
        self.test_predictions: list[DocumentPrediction] = []

    # ---- what a system defines ----

    @abstractmethod
    def collator(self, *, training: bool, pad_to_multiple_of: int = 1) -> Callable[[Sequence[Example]], Batch]:
        """Makes batches of this system from tokenised documents."""

    @abstractmethod
    def loss_terms(self, batch: Any) -> dict[str, Tensor]:
        """Scalars to log; the one under ``loss`` is minimised."""

    @abstractmethod
    def forward(self, batch: Any) -> Tensor:
        """Scores (logits) of all nodes, ``[B, V]``."""

    def settings(self) -> dict[str, Any]:
        """What building the system anew needs beside the encoder, plain types."""
        return {}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """What the system has beside the encoder, by the name of the file that keeps it."""
        return {}

    def label_embeddings(self) -> tuple[Tensor, Tensor] | None:
        """What stands for each node, ``[V, H]``, before and after training, on the CPU; None where nothing does."""
        return None

    def save_pretrained(self, folder: Path) -> None:
        """A folder for ``AutoModelForMaskedLM`` and ``AutoTokenizer``, with ``taxonomy.json`` and ``<system>.json``.

        What the system has beside the encoder is in ``.safetensors`` files.
        """
        with quiet_transformers():
            self.backbone.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.taxonomy.to_json(folder / "taxonomy.json")
        for name, tensors in self.tensors().items():
            save_file({key: value.contiguous() for key, value in tensors.items()}, folder / f"{name}.safetensors")
        settings = {
            **self.settings(),
            "thresholds": self.thresholds,
            "prune": self.prune,
            "coherent": self.coherent,
            "decision": self.decision.name,
            "version": ptmt_lightning.__version__,
        }
        (folder / f"{self.system}.json").write_text(json.dumps(settings, indent=2))

    # ---- prediction ----

    def probabilities(self, logits: Tensor) -> Tensor:
        """Float32 probabilities ``[B, V]``."""
        probabilities = self.decision.probabilities(logits, self.taxonomy.level_sizes)
        return self.taxonomy.coherent(probabilities) if self.coherent else probabilities

    def predict_nodes(self, probabilities: Tensor) -> Tensor:
        """Bool ``[B, V]``: threshold, then prune top-down."""
        predicted = self.decision.predict(probabilities, self.taxonomy.level_sizes, self.thresholds)
        return self.taxonomy.prune(predicted) if self.prune else predicted

    # ---- training ----

    def label_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The label loss of each document and level, ``[B, D]``, from ``[B, V]`` logits and targets.

        Coherent scores are trained after the loss of C-HMCNN (Giunchiglia and Lukasiewicz 2020), mirrored: a true node
        counts with the lowest score on its path, any other one with the lowest on its path that is not true either, so
        that no true one is pushed down for a child.
        """
        if self.coherent:
            others = logits.masked_fill(targets, torch.inf)
            logits = torch.where(targets, self.taxonomy.coherent(logits), self.taxonomy.coherent(others))
        loss_BD: Tensor = self.label_loss(logits, targets, self.taxonomy.level_sizes)
        return loss_BD

    def mean_label_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """:meth:`label_losses` summed over levels, mean over documents."""
        return self.label_losses(logits, targets).sum(dim=-1).mean()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Tie dropout to seed, epoch, step and rank alone, so that a resumed run draws the same."""
        key = (self.seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(hash(key) % 2**63)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        terms = self.loss_terms(batch)
        if not torch.isfinite(terms["loss"]):
            self._stop_at_non_finite(terms, batch)
        terms_and_rate = {name: value.detach() for name, value in terms.items()}
        terms_and_rate["learning_rate"] = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.log_dict({f"train/{name}": value for name, value in terms_and_rate.items()}, batch_size=len(batch.rows))
        return terms["loss"]

    def _stop_at_non_finite(self, terms: dict[str, Tensor], batch: Batch) -> None:
        values = ", ".join(f"{name}={value.item():g}" for name, value in terms.items())
        datamodule = getattr(self.trainer, "datamodule", None)
        rows = batch.rows.tolist()
        ids = datamodule.document_ids("train", rows) if datamodule is not None else rows
        raise ValueError(
            f"non-finite loss at step {self.global_step} (epoch {self.current_epoch}): {values}; documents {ids}; "
            "lower optimizer.learning_rate, or train with trainer.precision=32-true"
        )

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        num_steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(num_steps):
            raise ValueError(
                "trainer.max_epochs=-1: the linear decay needs an end; set trainer.max_epochs or max_steps"
            )
        # Lightning refuses to clip under mixed precision with a kernel that could unscale gradients itself.
        fused = not str(self.trainer.precision).endswith("mixed")
        optimizer, scheduler = self.optimizer.build(
            self,
            int(num_steps),
            fused=fused,
            new=[
                *(parameter for name, parameter in self.named_parameters() if not name.startswith("backbone.")),
                *self.backbone.new_parameters(),
            ],
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    # ---- evaluation ----

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits = self(batch)
        probabilities = self.probabilities(logits)
        self.val_metrics.update(self.predict_nodes(probabilities), batch.targets, probabilities)
        if self.val_scores is not None:  # the curves have this checkpoint's validation already
            self.val_scores.append((probabilities.cpu(), batch.targets.cpu()))
            return
        label_loss = self.mean_label_loss(logits, batch.targets)
        self.log("val/label_loss", label_loss, batch_size=len(batch.rows), sync_dist=True)

    def on_validation_epoch_start(self) -> None:
        self.val_metrics.reset()

    def on_validation_epoch_end(self) -> None:
        if self.trainer.sanity_checking:
            return
        self.val_results = self.val_metrics.compute().values
        if self.val_scores is None:
            self._log_results("val", self.val_results)

    @property
    def fit_seconds(self) -> float:
        """Wall time of fitting, over all legs of a resumed run."""
        return self._earlier_seconds + time.perf_counter() - self.fit_started

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["val_results"] = self.val_results
        checkpoint["fit_seconds"] = self.fit_seconds

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.val_results = checkpoint["val_results"]
        self._earlier_seconds = checkpoint["fit_seconds"]

    def on_test_epoch_start(self) -> None:
        self.test_metrics.reset()
        self.test_predictions = []

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        probabilities = self.probabilities(self(batch))
        predicted = self.predict_nodes(probabilities)
        self.test_metrics.update(predicted, batch.targets, probabilities)
        per_document = zip(batch.rows.tolist(), predicted.cpu(), probabilities.cpu(), batch.targets.cpu(), strict=True)
        for row, kept, scores, true in per_document:
            nodes, true_nodes = kept.nonzero().squeeze(-1), true.nonzero().squeeze(-1)
            prediction = DocumentPrediction(
                row, nodes.tolist(), scores[nodes].tolist(), true_nodes.tolist(), scores[true_nodes].tolist()
            )
            self.test_predictions.append(prediction)

    def on_test_epoch_end(self) -> None:
        self.test_results, self.test_counts, self.test_scored = self.test_metrics.compute()
        self._log_results("test", self.test_results)
        if self.trainer.world_size > 1:
            gathered: list[list[DocumentPrediction]] = [[] for _ in range(self.trainer.world_size)]
            torch.distributed.all_gather_object(gathered, self.test_predictions)
            self.test_predictions = [prediction for share in gathered for prediction in share]
        self.test_predictions.sort(key=lambda prediction: prediction.row)

    def _log_results(self, split: str, results: dict[str, float]) -> None:
        # compute() has added up the counts of all ranks, so the values are the same on each.
        self.log_dict({f"{split}/{name}": value for name, value in results.items()})


def _thresholds(threshold: float | Sequence[float], num_levels: int) -> list[float]:
    """One a level."""
    thresholds = list(threshold) if isinstance(threshold, Sequence) else [threshold] * num_levels
    if len(thresholds) != num_levels:
        raise ValueError(
            f"model.threshold={thresholds}: expected a number, or {num_levels} numbers, one a level of the taxonomy"
        )
    for value in thresholds:
        check_range("model.threshold", value, 0, 1)
    return thresholds
