"""The layers of the plain classifiers: one linear layer over the states of ``[CLS]``.

Shape legend: ``B`` documents, ``V`` nodes.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ptmt_lightning.models.networks.text import TextBatch, TextNetwork
from ptmt_lightning.utils.checks import check_range


class CLSNetwork(TextNetwork):
    """Scores nodes by dropout and one linear layer over the states of ``[CLS]``."""

    sizes: ClassVar[dict[str, int]] = {"num_layers": 1000}

    def add_layers(self, *, num_layers: int, dropout: float = 0.0) -> None:
        """Add the layers over the backbone.

        Args:
            num_layers: how many of the encoder's last layers the linear layer sees, concatenated.
            dropout: dropout probability before the linear layer.

        Raises:
            ValueError: the encoder has fewer layers.
        """
        config = self.backbone.model.config
        check_range("model.num_layers", num_layers, 1, config.num_hidden_layers, integer=True)
        self.num_layers = num_layers
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(num_layers * config.hidden_size, len(self.taxonomy))

    def forward(self, batch: TextBatch) -> Tensor:
        """Return the scores (logits) of all nodes, ``[B, V]``."""
        first = torch.zeros_like(batch.input_ids[:, :1])
        states = self.backbone.states(batch.input_ids, batch.attention_mask, first, num_layers=self.num_layers)
        logits: Tensor = self.head(self.dropout(states[:, 0]))
        return logits
