"""The optimiser and its schedule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_linear_schedule_with_warmup

from ptmt_lightning.checks import check_range


@dataclass(frozen=True, kw_only=True)
class LinearAdamW:
    """AdamW with warm-up and linear decay to 0; no weight decay on biases and norms.

    Args:
        learning_rate: at the end of the warm-up.
        warmup_ratio: share of all steps that the warm-up takes.
    """

    learning_rate: float
    weight_decay: float
    warmup_ratio: float

    def __post_init__(self) -> None:
        check_range("optimizer.learning_rate", self.learning_rate, 0)
        check_range("optimizer.weight_decay", self.weight_decay, 0)
        check_range("optimizer.warmup_ratio", self.warmup_ratio, 0, 1)

    def build(self, module: nn.Module, num_steps: int, *, fused: bool) -> tuple[torch.optim.Optimizer, LambdaLR]:
        """Optimiser and per-step schedule over ``num_steps`` steps; vectors (biases, norms) do not decay."""
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = AdamW(groups, lr=self.learning_rate, fused=fused)
        num_warmup = round(self.warmup_ratio * num_steps)
        return optimizer, get_linear_schedule_with_warmup(optimizer, num_warmup, num_steps)
