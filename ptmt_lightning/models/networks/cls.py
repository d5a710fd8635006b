"""The layers of the plain classifiers: one linear layer over the states of ``[CLS]``, or over all states pooled.

Shape legend: ``B`` documents, ``L`` sequence length, ``V`` nodes.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ptmt_lightning.models.networks.text import TextBatch, TextNetwork
from ptmt_lightning.utils.checks import check_range

Pooling = Literal["cls", "mean", "max"]


class CLSNetwork(TextNetwork):
    """Scores nodes by dropout and one linear layer over the states of ``[CLS]``, or over all states pooled."""

    sizes: ClassVar[dict[str, int]] = {"num_layers": 1000}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {"pooling": ("cls", "mean", "max")}

    def add_layers(self, *, num_layers: int, dropout: float = 0.0, pooling: Pooling = "cls") -> None:
        """Add the layers over the backbone.

        Args:
            num_layers: how many of the encoder's last layers the linear layer sees, concatenated.
            dropout: dropout probability before the linear layer.
            pooling: ``cls`` for the states of ``[CLS]``, ``mean`` or ``max`` of those of all tokens, padding left out.

        Raises:
            ValueError: the encoder has fewer layers.
        """
        config = self.backbone.model.config
        check_range("model.num_layers", num_layers, 1, config.num_hidden_layers, integer=True)
        self.num_layers, self.pooling = num_layers, pooling
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(num_layers * config.hidden_size, len(self.taxonomy))

    def forward(self, batch: TextBatch) -> Tensor:
        """Return the scores (logits) of all nodes, ``[B, V]``."""
        logits: Tensor = self.head(self.dropout(self._pooled(batch)))
        return logits

    def _pooled(self, batch: TextBatch) -> Tensor:
        ids, mask = batch.input_ids, batch.attention_mask
        if self.pooling == "cls":
            first = torch.zeros_like(ids[:, :1])
            return self.backbone.states(ids, mask, first, num_layers=self.num_layers)[:, 0]
        everywhere = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        states = self.backbone.states(ids, mask, everywhere, num_layers=self.num_layers)
        if self.pooling == "max":
            return states.masked_fill(mask[..., None] == 0, -torch.inf).amax(dim=1)
        return (states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
