"""The optimiser's groups and schedule."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import BertTokenizer

from ptmt_lightning.backbones import Backbone
from ptmt_lightning.optim import LinearAdamW

SETTINGS: dict[str, Any] = {"learning_rate": 0.1, "new_rate_factor": 10, "weight_decay": 0.01, "warmup_ratio": 0.2}


def learning_rates(optimizer: torch.optim.Optimizer, scheduler: LambdaLR, num_steps: int) -> list[float]:
    """The rate of each step, and the one after the last."""
    rates = [optimizer.param_groups[0]["lr"]]
    for _ in range(num_steps):
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def test_biases_and_norms_do_not_decay_and_everything_else_does(tiny: tuple[Backbone, BertTokenizer, int]) -> None:
    backbone = tiny[0]
    optimizer, _ = LinearAdamW(**SETTINGS).build(backbone, 10, fused=False)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in backbone.named_parameters():
        is_free = name.endswith("bias") or "LayerNorm" in name
        assert decay.pop(id(parameter)) == (0.0 if is_free else 0.01), name
    assert not decay


def test_every_trained_parameter_is_in_one_group_once(tiny: tuple[Backbone, BertTokenizer, int]) -> None:
    backbone = tiny[0]
    frozen = backbone.token_embeddings.requires_grad_(False)
    optimizer, _ = LinearAdamW(**SETTINGS).build(backbone, 10, fused=False)
    ids = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert len(ids) == len(set(ids)) == sum(1 for _ in backbone.parameters()) - 1
    assert id(frozen) not in ids


def test_rate_warms_up_and_then_falls_linearly_to_zero() -> None:
    optimizer, scheduler = LinearAdamW(**SETTINGS).build(nn.Linear(2, 2), 10, fused=False)
    expected = [0, 0.05, 0.1, 0.0875, 0.075, 0.0625, 0.05, 0.0375, 0.025, 0.0125, 0]
    assert learning_rates(optimizer, scheduler, 10) == pytest.approx(expected)


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    optimizer, scheduler = LinearAdamW(**SETTINGS | {"warmup_ratio": 0}).build(nn.Linear(2, 2), 4, fused=False)
    assert learning_rates(optimizer, scheduler, 4) == pytest.approx([0.1, 0.075, 0.05, 0.025, 0])


def test_constant_rate_after_the_warm_up() -> None:
    optimizer, scheduler = LinearAdamW(**SETTINGS, schedule="constant").build(nn.Linear(2, 2), 10, fused=False)
    assert learning_rates(optimizer, scheduler, 10) == pytest.approx([0, 0.05] + [0.1] * 9)


def test_fused_steps_equal_the_plain_ones() -> None:
    results = []
    for fused in (False, True):
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        optimizer, scheduler = LinearAdamW(**SETTINGS).build(layer, 6, fused=fused)
        for _ in range(6):
            optimizer.zero_grad()
            layer(torch.ones(4, 3)).pow(2).sum().backward()
            optimizer.step()
            scheduler.step()
        results.append(layer.weight.detach())
    torch.testing.assert_close(results[0], results[1])


def test_new_parameters_step_under_a_higher_rate() -> None:
    table, head = nn.Linear(3, 6), nn.Linear(3, 2)
    optimizer, _ = LinearAdamW(**SETTINGS | {"warmup_ratio": 0}).build(
        nn.ModuleList([table, head]), 6, fused=False, new=head.parameters()
    )
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in table.parameters()} == {0.1}
    assert [rates[id(p)] for p in head.parameters()] == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": "cosine"}, "optimizer.schedule='cosine': expected 'linear' or 'constant'"),
        ({"new_rate_factor": -1}, "optimizer.new_rate_factor=-1: expected a number >= 0"),
        ({"learning_rate": -1e-3}, "optimizer.learning_rate=-0.001: expected a number >= 0"),
        ({"learning_rate": "1e-3"}, "optimizer.learning_rate='1e-3': expected a number >= 0"),
        ({"weight_decay": None}, "optimizer.weight_decay=None: expected a number >= 0"),
        ({"warmup_ratio": 5}, "optimizer.warmup_ratio=5: expected a number in [0, 1]"),
        ({"warmup_ratio": -0.1}, "optimizer.warmup_ratio=-0.1: expected a number in [0, 1]"),
    ],
)
def test_bad_values_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        LinearAdamW(**SETTINGS | change)


@pytest.mark.parametrize(
    ("hidden_size", "is_pretrained", "rate", "factor"),
    [
        (1024, True, 2e-5, 10),
        (768, True, 5e-5, 10),
        (512, True, 1e-4, 10),
        (384, True, 3e-4, 10),
        (128, True, 3e-4, 10),
        (128, False, 1e-3, 1),
    ],
)
def test_rates_that_are_not_set_fit_the_backbone(
    tiny: tuple[Backbone, BertTokenizer, int], hidden_size: int, is_pretrained: bool, rate: float, factor: float
) -> None:
    backbone = copy.deepcopy(tiny[0])
    backbone.model.config.hidden_size, backbone.is_pretrained = hidden_size, is_pretrained
    chosen = LinearAdamW().for_backbone(backbone)
    assert (chosen.learning_rate, chosen.new_rate_factor) == (rate, factor)
    given = LinearAdamW(learning_rate=0.5, new_rate_factor=3)
    assert given.for_backbone(backbone) == given


def test_nothing_is_built_with_a_rate_that_is_not_known() -> None:
    with pytest.raises(ValueError, match=r"optimizer.learning_rate=None: .* for_backbone"):
        LinearAdamW().build(nn.Linear(1, 1), 10, fused=False)


def test_moments_of_rows_that_a_matrix_no_longer_has_are_left_out() -> None:
    """Checkpoints of earlier versions have some for new tokens."""
    longer, shorter = (nn.Linear(3, rows, bias=False) for rows in (7, 5))
    before, _ = LinearAdamW(**SETTINGS).build(longer, 10, fused=False)
    longer(torch.ones(1, 3)).sum().backward()
    before.step()
    after, _ = LinearAdamW(**SETTINGS).build(shorter, 10, fused=False)
    after.load_state_dict(before.state_dict())
    for name in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(after.state[shorter.weight][name], before.state[longer.weight][name][:5])
