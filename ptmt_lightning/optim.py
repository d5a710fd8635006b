"""The optimiser and its learning-rate schedule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_constant_schedule_with_warmup, get_linear_schedule_with_warmup

from ptmt_lightning.utils.checks import check_range


@dataclass(frozen=True, kw_only=True)
class LinearAdamW:
    """AdamW with a warm-up, then linear decay to 0 or a constant rate; biases and norms have no weight decay.

    Args:
        learning_rate: rate at the end of the warm-up.
        new_rate_factor: factor of the rate for parameters that are not pretrained (heads, embeddings of added tokens).
        weight_decay: coefficient of AdamW's decoupled weight decay.
        warmup_ratio: share of all steps in which the rate rises linearly from 0, in [0, 1].
        schedule: what follows the warm-up: ``linear`` decay to 0 at the last step, or a ``constant`` rate.

    Raises:
        ValueError: a setting that is out of range.
    """

    learning_rate: float = 5e-5
    new_rate_factor: float = 10
    weight_decay: float = 0.01
    warmup_ratio: float = 0.05
    schedule: Literal["linear", "constant"] = "linear"

    def __post_init__(self) -> None:
        check_range("optimizer.learning_rate", self.learning_rate, 0)
        check_range("optimizer.new_rate_factor", self.new_rate_factor, 0)
        check_range("optimizer.weight_decay", self.weight_decay, 0)
        check_range("optimizer.warmup_ratio", self.warmup_ratio, 0, 1)
        if self.schedule not in ("linear", "constant"):
            raise ValueError(f"optimizer.schedule={self.schedule!r}: expected 'linear' or 'constant'")

    def build(
        self,
        module: nn.Module,
        num_steps: int,
        *,
        fused: bool,
        new: Iterable[nn.Parameter] = (),
    ) -> tuple[AdamW, LambdaLR]:
        """Return the optimiser of a module's trainable parameters, and its schedule, to be advanced every step.

        Args:
            module: what is trained; its vectors (biases, norms) have no weight decay.
            num_steps: number of optimiser steps of the whole run.
            fused: whether AdamW runs as a fused kernel.
            new: parameters of ``module`` that are not pretrained.
        """
        new_ids = {id(parameter) for parameter in new}
        groups = []
        for is_new in (False, True):
            trained = [p for p in module.parameters() if p.requires_grad and (id(p) in new_ids) == is_new]
            rate = self.learning_rate * (self.new_rate_factor if is_new else 1)
            groups += [
                {"params": [p for p in trained if p.ndim > 1], "lr": rate, "weight_decay": self.weight_decay},
                {"params": [p for p in trained if p.ndim <= 1], "lr": rate, "weight_decay": 0.0},
            ]
        optimizer = AdamW([group for group in groups if group["params"]], lr=self.learning_rate, fused=fused)
        num_warmup = round(self.warmup_ratio * num_steps)
        if self.schedule == "constant":
            return optimizer, get_constant_schedule_with_warmup(optimizer, num_warmup)
        return optimizer, get_linear_schedule_with_warmup(optimizer, num_warmup, num_steps)
