"""One toy of each thing that docs/guides/extending.md says how to add, added as it says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from conftest import TOY_DOCUMENTS, TOY_EDGES
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM, BertTokenizer

from ptmt_lightning.backbones.families import FAMILIES
from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.decisions import DECISIONS
from ptmt_lightning.losses import LabelLoss, level_sums
from ptmt_lightning.metrics import METRICS, Counts
from ptmt_lightning.models.encoder import TextBatch, TextClassifier
from ptmt_lightning.training.artifacts import OUTPUTS, FinishedRun, Tables

# ---- a system ----


class ToySystem(TextClassifier):
    """Scores nodes by one linear layer over the mean of the encoder's states."""

    system = "toy"

    def __init__(self, *, scale: float = 1.0, **shared: Any) -> None:
        super().__init__(**shared)
        self.scale, self.head = scale, nn.Linear(self.backbone.hidden_size, len(self.taxonomy))

    def forward(self, batch: TextBatch) -> Tensor:
        """Return scores ``[B, V]``."""
        everywhere = batch.input_ids.new_tensor(range(batch.input_ids.shape[1])).expand_as(batch.input_ids)
        states = self.backbone.states(batch.input_ids, batch.attention_mask, everywhere)
        mask = batch.attention_mask[..., None]
        scores: Tensor = self.scale * self.head((states * mask).sum(dim=1) / mask.sum(dim=1))
        return scores

    def loss_terms(self, batch: TextBatch) -> dict[str, Tensor]:
        """Return the label loss, and a term of the system's own."""
        label = self.mean_label_loss(self(batch), batch.targets)
        size = self.head.weight.square().mean()
        return {"loss": label + 0.01 * size, "label": label, "toy_size": size}


# ---- a loss ----


class ToyLoss(LabelLoss):
    """Squared error of probabilities."""

    decision = DECISIONS["sigmoid"]

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, logits: Tensor, targets: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Return the loss of each document and level, ``[B, D]``."""
        errors = F.mse_loss(logits.float().sigmoid(), targets.float(), reduction="none")
        return self.weight * level_sums(errors, level_sizes)


# ---- a metric ----


def labels_a_document(counts: Counts) -> Tensor:
    """Return how many labels are predicted for a document on average."""
    return (counts.flat[0] + counts.flat[1]).sum().double() / counts.num_documents.double()


METRICS["toy_labels_a_document"] = labels_a_document

# ---- a data set ----


class ToyData(HTCDataModule):
    """Documents that are made on the spot, in the project's own form."""

    def prepare_data(self) -> None:
        """Write the folder, once."""
        if not self.path.exists():
            self.path.mkdir(parents=True)
            (self.path / "taxonomy.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in TOY_EDGES))
            for split in ("train", "val", "test"):
                lines = "".join(json.dumps(document) + "\n" for document in TOY_DOCUMENTS * 2)
                (self.path / f"{split}.jsonl").write_text(lines)
        super().prepare_data()


# ---- a backbone family ----


class ToyConfig(BertConfig):
    """BERT's, under another name."""

    model_type = "toybert"


class ToyForMaskedLM(BertForMaskedLM):
    """BERT's, under another name."""

    config_class = ToyConfig


AutoConfig.register("toybert", ToyConfig)
AutoModelForMaskedLM.register(ToyConfig, ToyForMaskedLM)
AutoTokenizer.register(ToyConfig, fast_tokenizer_class=BertTokenizer)
FAMILIES["toybert"] = FAMILIES["bert"]

# ---- an output of a run ----


def _toy_output(run: FinishedRun) -> Tables:
    (run.folder.path / "toy.txt").write_text(f"{run.result['dataset']}: {len(run.model.taxonomy)} labels\n")
    return {}


OUTPUTS["toy.txt"] = _toy_output
