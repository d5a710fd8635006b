"""BERT with a plain multi-label head on ``[CLS]`` or on pooled states: the baseline without prompts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ptmt_lightning.models.encoder import TextBatch, TextClassifier
from ptmt_lightning.models.networks.cls import CLSNetwork, Pooling
from ptmt_lightning.utils.checks import check_range


class BERTClassifier(CLSNetwork, TextClassifier):
    """A classifier of dropout and one linear layer over the states of ``[CLS]``, or over all states pooled.

    Args:
        dropout: dropout probability before the linear layer.
        num_layers: how many of the encoder's last layers the linear layer sees, concatenated.
        pooling: ``cls`` for the states of ``[CLS]``, ``mean`` or ``max`` of those of all tokens.
        shared: settings of all systems, see :class:`~ptmt_lightning.models.base.HTCModel`.
    """

    system = "bert"

    def __init__(self, *, dropout: float = 0.1, num_layers: int = 1, pooling: Pooling = "cls", **shared: Any) -> None:
        super().__init__(**shared)
        check_range("model.dropout", dropout, 0, 1, high_open=True)
        if pooling not in self.choices["pooling"]:
            raise ValueError(f"model.pooling={pooling!r}: expected cls, mean or max; set model.pooling to one of these")
        self.add_layers(num_layers=num_layers, dropout=dropout, pooling=pooling)
        nn.init.normal_(self.head.weight, std=self.backbone.model.config.initializer_range)
        with torch.no_grad():
            self.head.bias.copy_(self.rule.decision.initial_logits(self.taxonomy.level_sizes))

    def loss_terms(self, batch: TextBatch) -> dict[str, Tensor]:
        """Return the label loss of a batch as ``loss``."""
        return {"loss": self.mean_label_loss(self(batch), batch.targets)}

    def settings(self) -> dict[str, Any]:
        """Return the settings that are needed to rebuild the saved system, as plain types."""
        return super().settings() | {"num_layers": self.num_layers, "pooling": self.pooling}
