"""The layers of the baseline that trains nothing of the backbone: one linear layer over the mean of all states.

Shape legend: ``B`` documents, ``L`` sequence length, ``H`` hidden size, ``V`` nodes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ptmt_lightning.models.networks.text import TextBatch, TextNetwork


class FrozenNetwork(TextNetwork):
    """Scores nodes by one linear layer over the mean of the last states, padding left out."""

    def add_layers(self) -> None:
        """Add the layer over the backbone."""
        self.head = nn.Linear(self.backbone.hidden_size, len(self.taxonomy))

    def forward(self, batch: TextBatch) -> Tensor:
        """Return the scores (logits) of all nodes, ``[B, V]``."""
        mask_BL1 = batch.attention_mask[..., None]
        everywhere = torch.arange(batch.input_ids.shape[1], device=batch.input_ids.device).expand_as(batch.input_ids)
        # In training nothing below the head learns; of a trained model, explanations want gradients.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.training):
            states_BLH = self.backbone.states(batch.input_ids, batch.attention_mask, everywhere)
            means_BH = (states_BLH * mask_BL1).sum(dim=1) / mask_BL1.sum(dim=1)
        logits: Tensor = self.head(means_BH)
        return logits
