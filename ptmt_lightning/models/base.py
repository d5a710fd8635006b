"""The base class of all systems: their common settings, optimisation, prediction, metrics and logging.

Shape legend: ``B`` documents, ``V`` nodes, ``D`` levels, ``H`` hidden size.
"""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

import ptmt_lightning
from ptmt_lightning.backbones import Backbone, quiet_transformers
from ptmt_lightning.calibration import Method, check_calibrate
from ptmt_lightning.data.document import Example
from ptmt_lightning.decisions import (
    DEFAULT_THRESHOLD,
    DecisionRule,
    Decoding,
    check_decoding,
    per_level,
)
from ptmt_lightning.losses import WASL, LabelLoss
from ptmt_lightning.metrics import Classes, HierarchicalMetrics
from ptmt_lightning.models.batch import Batch, Evaluated
from ptmt_lightning.models.rule_checks import check_decision
from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.thresholds import Tuning, check_tuning
from ptmt_lightning.utils.digests import digest, model_digests


class HTCModel(L.LightningModule):
    """Base class of all systems, which are models for hierarchical text classification.

    A system says how its batches are made (:meth:`collator`), what it is trained on (:meth:`loss_terms`) and how it
    scores nodes (:meth:`forward`).

    Args:
        taxonomy: hierarchy of the labels.
        backbone: language model that reads the texts.
        tokenizer: the backbone's tokenizer.
        max_length: longest sequence, in tokens.
        label_loss: trains scores, and names the decision that turns them into labels; None for the one that the
            system was published with.
        optimizer: optimiser and schedule; None for those that the system was published with.
        decoding: how labels are chosen by their probabilities: ``threshold`` for each on its own, ``best_path`` for the
            most probable path of each document, ``top_k`` for the most probable labels of each level. None for
            ``best_path`` where each training document has one path and no threshold is set or tuned, else
            ``threshold`` (experiments/decoding); until the training documents are known, it is ``threshold``.
        threshold: a node is predicted above this probability; a number, or a list with one a level.
        top_k: with ``decoding="top_k"``, the number of labels of each level.
        tune_threshold: after training, choose thresholds on the validation documents instead: one for all levels
            (``global``), or one a level (``level``). None to keep ``threshold``.
        calibrate: after training, correct probabilities so that they say how often labels are true, by validation
            documents: ``temperature`` or ``isotonic``, see :mod:`ptmt_lightning.calibration`. None to leave them.
        prune: drop predicted nodes below level 1 without a predicted parent.
        coherent: score a node no higher than its highest-scored parent, in training and in prediction.
        metric_classes: the classes that macro averages run over: ``present`` ones or ``all``.
        seed: seeds the drawing of masks and dropout.

    Raises:
        ValueError: a setting that is not valid, or does not go with the loss.
    """

    system: ClassVar[str]  # name of the system in tables, and of its settings file in a saved folder

    def __init__(
        self,
        *,
        taxonomy: Taxonomy,
        backbone: Backbone,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        label_loss: LabelLoss | None = None,
        optimizer: LinearAdamW | None = None,
        decoding: Decoding | None = None,
        threshold: float | Sequence[float] = DEFAULT_THRESHOLD,
        top_k: int | None = None,
        tune_threshold: Tuning | None = None,
        calibrate: Method | None = None,
        prune: bool = True,
        coherent: bool = False,
        metric_classes: Classes = "present",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.label_loss = self.published_loss() if label_loss is None else label_loss
        optimizer = self.published_optimizer() if optimizer is None else optimizer
        self.chose_rate = optimizer.learning_rate is None
        self.optimizer = optimizer.for_backbone(backbone)
        self.chooses_decoding = (
            decoding is None and top_k is None and threshold == DEFAULT_THRESHOLD and not tune_threshold
        )
        decoding = decoding or "threshold"
        check_tuning(tune_threshold)
        check_calibrate(calibrate)
        check_decoding(decoding, top_k)
        check_decision(
            self.label_loss.decision, type(self.label_loss).__name__, decoding=decoding, tune_threshold=tune_threshold,
            calibrate=calibrate, coherent=coherent,
        )  # fmt: skip
        self.taxonomy, self.backbone, self.tokenizer = taxonomy, backbone, tokenizer
        self.max_length, self.seed = max_length, seed
        self.tune_threshold, self.calibrate = tune_threshold, calibrate
        self.rule = DecisionRule(
            taxonomy=taxonomy, decision=self.label_loss.connect(taxonomy), decoding=decoding, top_k=top_k, prune=prune,
            coherent=coherent, thresholds=per_level("model.threshold", threshold, taxonomy.num_levels),
        )  # fmt: skip
        self.val_metrics = HierarchicalMetrics(taxonomy, classes=metric_classes)
        self.test_metrics = HierarchicalMetrics(taxonomy, classes=metric_classes)

    # ---- to be defined by a system ----

    @staticmethod
    def published_loss() -> LabelLoss:
        """Return the label loss of the system's publication, the default of ``label_loss``."""
        return WASL()

    @staticmethod
    def published_optimizer() -> LinearAdamW:
        """Return the optimiser of the system's publication, the default of ``optimizer``."""
        return LinearAdamW()

    @abstractmethod
    def collator(self, *, training: bool, pad_to_multiple_of: int = 1) -> Callable[[Sequence[Example]], Batch]:
        """Return a function that makes a batch of this system from tokenised documents.

        Args:
            training: whether the batches are for training, where a system may mask tokens at random.
            pad_to_multiple_of: sequences are padded to a multiple of this length.
        """

    @abstractmethod
    def loss_terms(self, batch: Any) -> dict[str, Tensor]:
        """Return the scalars to log of a training batch, by name; ``loss`` is the one that is minimised."""

    @abstractmethod
    def forward(self, batch: Any) -> Tensor:
        """Return the scores (logits) of all nodes, ``[B, V]``."""

    def start_from(self, counts: Sequence[int], num_documents: int) -> None:
        """Prepare parameters that start by what the training documents are; most systems have none.

        Args:
            counts: number of training documents of each node.
            num_documents: number of training documents.
        """

    @property
    def max_text_tokens(self) -> int:
        """Number of tokens at which texts are cut."""
        return self.max_length

    def settings(self) -> dict[str, Any]:
        """Return the settings that are needed to rebuild the saved system, as plain types."""
        return {}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return the parameters that the saved backbone does not hold, by the name of the file to keep them."""
        return {}

    def label_embeddings(self) -> tuple[Tensor, Tensor] | None:
        """Return the embeddings of nodes before training and now, ``[V, H]`` each on the CPU, or None without any."""
        return None

    # ---- prediction ----

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return float32 probabilities ``[B, V]`` of scores (logits) ``[B, V]``."""
        return self.rule.probabilities(logits)

    def predict_nodes(self, probabilities: Tensor) -> Tensor:
        """Return which nodes are predicted, bool ``[B, V]``, by probabilities ``[B, V]``."""
        return self.rule.predict(probabilities)

    def save_pretrained(self, folder: Path) -> None:
        """Write a folder that Transformers opens with ``AutoTokenizer`` and the backbone's ``AutoModelFor...`` class.

        Beside what these read it holds ``taxonomy.json``, the settings in ``<system>.json``, and further parameters in
        ``.safetensors`` files (see :meth:`tensors`).
        """
        with quiet_transformers():
            self.backbone.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.taxonomy.to_json(folder / "taxonomy.json")
        for name, tensors in self.tensors().items():
            save_file({key: value.contiguous() for key, value in tensors.items()}, folder / f"{name}.safetensors")
        settings = {
            **self.settings(), **self.rule.to_json(), "taxonomy_fingerprint": self.taxonomy.fingerprint,
            "metric_classes": self.val_metrics.classes, "version": ptmt_lightning.__version__,
        }  # fmt: skip
        settings["digest"] = model_digests(folder, settings, f"{self.system}.json")
        (folder / f"{self.system}.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
        for file in folder.glob("*.safetensors"):  # which come private, while the other files are as the umask says
            file.chmod((folder / "taxonomy.json").stat().st_mode)

    # ---- checkpoints ----

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write down for which labels and tokens the rows of embeddings are."""
        checkpoint["taxonomy_fingerprint"] = self.taxonomy.fingerprint
        checkpoint["vocabulary_digest"] = digest(self.tokenizer.get_vocab())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights for another taxonomy or vocabulary, whose rows would belong to other labels or tokens.

        Raises:
            ValueError: says what has changed.
        """
        saved = checkpoint.get("taxonomy_fingerprint", self.taxonomy.fingerprint)  # versions before 0.2 have none
        if saved != self.taxonomy.fingerprint:
            raise ValueError(
                "the checkpoint is of another taxonomy: nodes, their order or their parents have changed since the run "
                "began, and labels would get the weights of others; restore taxonomy.tsv, or start the run anew"
            )

        saved = checkpoint.get("vocabulary_digest")  # versions before 0.2 have none
        if saved not in (None, digest(self.tokenizer.get_vocab())):
            raise ValueError(
                "the checkpoint is of another vocabulary, and tokens would get weights of others: the tokenizer, or "
                "the training texts that a small backbone takes its words from, have changed since the run began; "
                "restore them, or start the run anew"
            )

    # ---- training ----

    def label_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the label loss of each document and level, ``[B, D]``, of logits and targets ``[B, V]``.

        Coherent scores are trained with the loss of C-HMCNN (Giunchiglia and Lukasiewicz 2020), turned upside
        down, as a node here is bounded by its parents instead of its children. A true node enters with the lowest score
        on its path from the root, any other node with the lowest score of those on its path that are not true, so that
        a wrong child never pushes its true parent down.
        """
        if self.rule.coherent:
            others = logits.masked_fill(targets, torch.inf)
            logits = torch.where(targets, self.taxonomy.coherent(logits), self.taxonomy.coherent(others))
        loss_BD: Tensor = self.label_loss(logits, targets, self.taxonomy.level_sizes)
        return loss_BD

    def mean_label_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the label loss of logits and targets ``[B, V]``, summed over levels and averaged over documents."""
        return self.label_losses(logits, targets).sum(dim=-1).mean()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout by the run's seed, epoch, step and rank alone, so that a resumed run draws the same numbers."""
        key = (self.seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(hash(key) % 2**63)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, and log its terms and the learning rate.

        Raises:
            ValueError: the loss is not finite.
        """
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
        """Return the optimiser and its schedule over all steps of the run.

        Raises:
            ValueError: the run has no last step.
        """
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

    def on_validation_epoch_start(self) -> None:
        """Reset the counts of an earlier validation."""
        self.val_metrics.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> Evaluated:
        """Count and return the predictions of a batch, and log its label loss."""
        logits = self(batch)
        evaluated = self._evaluate(batch, logits, self.val_metrics)
        label_loss = self.mean_label_loss(logits, batch.targets)
        self.log("val/label_loss", label_loss, batch_size=len(batch.rows), sync_dist=True)
        return evaluated

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the validation."""
        if not self.trainer.sanity_checking:
            self._log_metrics("val", self.val_metrics)

    def on_test_epoch_start(self) -> None:
        """Reset the counts of an earlier test."""
        self.test_metrics.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> Evaluated:
        """Count and return the predictions of a batch."""
        return self._evaluate(batch, self(batch), self.test_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test."""
        self._log_metrics("test", self.test_metrics)

    def _evaluate(self, batch: Batch, logits: Tensor, metrics: HierarchicalMetrics) -> Evaluated:
        probabilities = self.probabilities(logits)
        predicted = self.predict_nodes(probabilities)
        metrics.update(predicted, batch.targets, probabilities)
        return Evaluated(
            rows=batch.rows, logits=logits, probabilities=probabilities, predicted=predicted, targets=batch.targets
        )

    def _log_metrics(self, split: str, metrics: HierarchicalMetrics) -> None:
        # compute() has added up the counts of all ranks, so the values are the same on each.
        self.log_dict({f"{split}/{name}": value for name, value in metrics.compute().values.items()})
