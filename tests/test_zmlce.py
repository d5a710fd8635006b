"""The zero-bounded log-sum-exp and cross-entropy of HPT, against its formula."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ptmt_lightning.losses import ZMLCE


@given(
    level_sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), size=st.integers(1, 5), seed=st.integers(0, 999)
)
def test_it_equals_the_direct_formula(level_sizes: list[int], size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(size, sum(level_sizes), generator=generator)
    targets = torch.rand(scores.shape, generator=generator) < 0.4
    found = ZMLCE()(scores, targets, level_sizes)
    for row in range(size):
        start = 0
        for level, width in enumerate(level_sizes):
            pairs = list(zip(scores[row].tolist(), targets[row].tolist(), strict=True))[start : start + width]
            true = math.log(1 + sum(math.exp(-s) for s, is_true in pairs if is_true))
            other = math.log(1 + sum(math.exp(s) for s, is_true in pairs if not is_true))
            assert found[row, level].item() == pytest.approx(true + other, rel=1e-5, abs=1e-6)
            start += width


def test_it_weighs_labels_and_has_finite_slopes() -> None:
    loss, scores = ZMLCE(), torch.tensor([[100.0, -100.0, 0.5]], requires_grad=True)
    targets = torch.tensor([[False, True, False]])
    loss.weigh([1.0, math.e, 1.0])
    value = loss(scores, targets, [2, 1])
    assert value[0].tolist() == pytest.approx([201.0, math.log(1 + math.exp(0.5))])
    value.sum().backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
