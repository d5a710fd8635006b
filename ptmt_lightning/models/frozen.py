"""A linear head on mean-pooled states of a frozen encoder: the baseline that trains nothing of the backbone."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from ptmt_lightning.models.encoder import TextBatch, TextClassifier
from ptmt_lightning.models.networks.frozen import FrozenNetwork
from ptmt_lightning.optim import LinearAdamW


class FrozenEncoder(FrozenNetwork, TextClassifier):
    """A classifier of one linear layer over the mean of the encoder's last states, as sentence encoders make it.

    The mean runs over all tokens of ``[CLS] text [SEP]``, without padding. The backbone is neither trained nor has
    dropout.

    Args:
        shared: settings of all systems, see :class:`~ptmt_lightning.models.base.HTCModel`.

    Raises:
        ValueError: the backbone has low-rank updates, which would not be trained.
    """

    system = "frozen"

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)
        if self.backbone.new_parameters():
            raise ValueError(
                "model=frozen trains nothing of its backbone: expected backbone.lora_rank=null; leave it out, or set "
                "model=bert"
            )
        self.backbone.requires_grad_(False)
        self.backbone.eval()
        self.add_layers()
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            self.head.bias.copy_(self.rule.decision.initial_logits(self.taxonomy.level_sizes))

    @staticmethod
    def published_optimizer() -> LinearAdamW:
        """Return AdamW at a rate for a single layer, measured in experiments/baselines, as nobody published one."""
        return LinearAdamW(learning_rate=3e-2, new_rate_factor=1)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the head; the backbone, which is not trained, stays without dropout."""
        super().train(mode)
        self.backbone.eval()
        return self

    def loss_terms(self, batch: TextBatch) -> dict[str, Tensor]:
        """Return the label loss of a batch as ``loss``."""
        return {"loss": self.mean_label_loss(self(batch), batch.targets)}
