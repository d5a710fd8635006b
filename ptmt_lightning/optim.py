"""The optimiser and its learning-rate schedule."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_constant_schedule_with_warmup, get_linear_schedule_with_warmup

from ptmt_lightning.backbones import Backbone
from ptmt_lightning.utils.checks import check_range

# The rule for rates that are not set, measured in experiments/backbone_rates: AdamW moves each weight by about the rate
# at a step, whatever its gradient, and what a layer adds up of it grows with its width.
_RATE, _WIDTH, _POWER = 5e-5, 768, 2.5  # the usual rate of base-size models; the best of one half as wide is 3e-4
_HIGHEST, _HIGHEST_FROM_SCRATCH = 3e-4, 1e-3
_NEW_RATE_FACTOR = 10


@dataclass(frozen=True, kw_only=True)
class LinearAdamW:
    """AdamW with a warm-up, then linear decay to 0 or a constant rate; biases and norms have no weight decay.

    Args:
        learning_rate: rate at the end of the warm-up; None for one that fits the backbone, see :meth:`for_backbone`.
        new_rate_factor: factor of the rate for parameters that are not pretrained (heads, embeddings of added tokens);
            None for 10, or 1 where the backbone is not pretrained either.
        weight_decay: coefficient of AdamW's decoupled weight decay.
        warmup_ratio: share of all steps in which the rate rises linearly from 0, in [0, 1].
        schedule: what follows the warm-up: ``linear`` decay to 0 at the last step, or a ``constant`` rate.

    Raises:
        ValueError: a setting that is out of range.
    """

    learning_rate: float | None = None
    new_rate_factor: float | None = None
    weight_decay: float = 0.01
    warmup_ratio: float = 0.05
    schedule: Literal["linear", "constant"] = "linear"

    def __post_init__(self) -> None:
        if self.learning_rate is not None:
            check_range("optimizer.learning_rate", self.learning_rate, 0)
        if self.new_rate_factor is not None:
            check_range("optimizer.new_rate_factor", self.new_rate_factor, 0)
        check_range("optimizer.weight_decay", self.weight_decay, 0)
        check_range("optimizer.warmup_ratio", self.warmup_ratio, 0, 1)
        if self.schedule not in ("linear", "constant"):
            raise ValueError(f"optimizer.schedule={self.schedule!r}: expected 'linear' or 'constant'")

    def for_backbone(self, backbone: Backbone) -> LinearAdamW:
        """Return the same settings, with the rates that are None filled in.

        The rate of a pretrained backbone falls with its hidden size: 3e-4 up to 384, 1e-4 at 512, 5e-5 at 768, 2e-5 at
        1,024. One with random weights is small, and learns everything: 1e-3 at 2 layers, less with more.
        Low-rank updates and a frozen backbone need no rate of their own: what is trained there is new, and has
        ``new_rate_factor`` times the rate.

        Args:
            backbone: the language model to be trained.
        """
        rate, factor = self.learning_rate, self.new_rate_factor
        if factor is None:
            factor = _NEW_RATE_FACTOR if backbone.is_pretrained else 1
        if rate is None:
            rate = _RATE * (_WIDTH / backbone.hidden_size) ** _POWER
            rate = min(rate, _HIGHEST if backbone.is_pretrained else _HIGHEST_FROM_SCRATCH)
            rate = float(f"{rate:.1g}")
        return replace(self, learning_rate=rate, new_rate_factor=factor)

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

        Raises:
            ValueError: a rate is None.
        """
        if self.learning_rate is None or self.new_rate_factor is None:
            raise ValueError("optimizer.learning_rate=None: expected a number; set one, or call for_backbone first")
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
        optimizer.register_load_state_dict_pre_hook(_cut_moments)
        num_warmup = round(self.warmup_ratio * num_steps)
        if self.schedule == "constant":
            return optimizer, get_constant_schedule_with_warmup(optimizer, num_warmup)
        return optimizer, get_linear_schedule_with_warmup(optimizer, num_warmup, num_steps)


def _cut_moments(optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
    """Cut moments to their parameters: matrices of earlier versions have rows for new tokens, too."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    indices = [index for group in state_dict["param_groups"] for index in group["params"]]
    for index, parameter in zip(indices, parameters, strict=True):
        state = state_dict["state"].get(index, {})
        for name, value in state.items():
            if value.ndim == parameter.ndim and value.shape != parameter.shape:
                state[name] = value[tuple(map(slice, parameter.shape))]
