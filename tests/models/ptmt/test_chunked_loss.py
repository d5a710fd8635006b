"""Label loss and expected numbers of labels, computed for some nodes at a time, against the plain way."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import pytest
import torch
from largest_tensor import LargestTensor
from small_ptmt import make, randomise, toy_batch
from torch import Tensor

from ptmt_lightning import chunked_loss
from ptmt_lightning.chunked_loss import LabelSums, goes_in_chunks, label_sums
from ptmt_lightning.losses import (
    WASL,
    ZMLCE,
    CrossEntropy,
    FocalLoss,
    LabelLoss,
    MeanBCE,
    WeightedBCE,
    label_excess,
)

SIZES = (3, 5, 1)
LOSSES: dict[str, FocalLoss] = {
    "wasl": WASL(),
    "no_margin": WASL(margin=0, gamma_neg=2, level_weights=[1, 0.5, 3]),
    "no_focus": WASL(margin=0.2, gamma_pos=0, gamma_neg=0.5),
    "weighted_bce": WeightedBCE(),
    "mean_bce": MeanBCE(),
    "focal": MeanBCE(gamma=2, weight=3),
}


class Parts(NamedTuple):
    """What labels are scored from, and which are true."""

    states: Tensor
    rows: Tensor
    bias: Tensor
    targets: Tensor


def parts(dtype: torch.dtype, spread: float = 1.0) -> Parts:
    """4 documents with up to 3 of 9 labels, one without any, and 2 rows of other tokens before those of labels."""
    generator = torch.Generator().manual_seed(0)
    states, rows, bias = (
        torch.randn(shape, generator=generator, dtype=torch.float64).mul(spread).to(dtype).requires_grad_()
        for shape in ((4, 3, 6), (11, 6), (11,))
    )
    targets = torch.rand(4, 9, generator=generator) < 0.3
    targets[2] = False
    return Parts(states, rows, bias, targets)


def plain(loss: LabelLoss, states: Tensor, rows: Tensor, bias: Tensor, targets: Tensor) -> LabelSums:
    levels = zip(range(3), rows[-9:].split(SIZES), bias[-9:].split(SIZES), strict=True)
    logits = torch.cat([states[:, level] @ some.T + b for level, some, b in levels], dim=1)
    return LabelSums(loss(logits, targets, SIZES), label_excess(logits.sigmoid(), targets, SIZES))


def weighed(loss: FocalLoss) -> FocalLoss:
    loss.weigh([0.5, 1, 2, 1, 3, 0.1, 1, 1, 2])
    return loss


def gradients(sums: LabelSums, inputs: Parts) -> list[Tensor]:
    factors = torch.linspace(-1, 2, 12).reshape(4, 3)
    total = (sums.losses * factors).sum() + (sums.excess.abs() * factors).sum()
    return list(torch.autograd.grad(total, inputs[:3]))


@pytest.mark.parametrize("spread", [1.0, 30.0])
@pytest.mark.parametrize("cells", [8, 10**6])
@pytest.mark.parametrize("name", LOSSES)
def test_sums_and_gradients_are_those_of_the_plain_way(
    name: str, cells: int, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunked_loss, "_CELLS", cells)
    loss, inputs = weighed(LOSSES[name]), parts(torch.float32, spread)
    expected = plain(loss, *inputs)
    found = label_sums(*inputs, SIZES, loss.focusing(SIZES, torch.device("cpu")))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients(found, inputs), gradients(expected, inputs), rtol=1e-5, atol=1e-5 * spread)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_differences(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_loss, "_CELLS", 8)
    loss, inputs = weighed(LOSSES[name]), parts(torch.float64)
    focusing = loss.focusing(SIZES, torch.device("cpu"))
    compute = partial(label_sums, targets=inputs.targets, level_sizes=SIZES, focusing=focusing)
    assert torch.autograd.gradcheck(lambda *some: tuple(compute(*some)), inputs[:3])


def test_scores_of_all_documents_and_labels_are_never_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked_loss, "_CELLS", 2000)
    sizes, loss = (1000, 4000), WASL()
    states, rows = torch.randn(32, 2, 4, requires_grad=True), torch.randn(5000, 4, requires_grad=True)
    bias, targets = torch.zeros(5000, requires_grad=True), torch.zeros(32, 5000, dtype=torch.bool)
    targets[:, ::1000] = True
    focusing = loss.focusing(sizes, torch.device("cpu"))
    with LargestTensor() as largest:  # type: ignore[no-untyped-call]
        sums = label_sums(states, rows, bias, targets, sizes, focusing)
        (sums.losses + sums.excess.abs()).sum().backward()
    assert largest.size == rows.numel()  # of their gradient; all scores would be eight times as many
    assert rows.grad is not None


@pytest.mark.parametrize("p_label", [0.5, 1.0])
@pytest.mark.parametrize("scope", ["level", "all"])
def test_a_training_step_of_ptmt_is_that_of_the_plain_way(
    scope: str, p_label: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(count_scope=scope, p_label=p_label, alpha=0.2, mlm_probability=0.3)
    randomise(model)
    batch = toy_batch(model, training=True)
    model.loss_terms(batch)["loss"].backward()
    expected = {name: parameter.grad for name, parameter in model.named_parameters()}
    terms = model.loss_terms(batch)
    model.zero_grad()
    monkeypatch.setattr(chunked_loss, "_MANY", 1)
    assert goes_in_chunks(model.label_loss, batch.targets.numel())
    in_chunks = model.loss_terms(batch)
    torch.testing.assert_close(in_chunks, terms, rtol=1e-6, atol=1e-6)
    in_chunks["loss"].backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


class Squared(WASL):
    """A loss of one's own that is no sum of the parts of its base."""

    def forward(self, *arguments: object) -> Tensor:
        return super().forward(*arguments).square()  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", [CrossEntropy(), ZMLCE(), Squared()])
def test_other_losses_are_computed_at_once(loss: LabelLoss) -> None:
    assert not goes_in_chunks(loss, 10**8)
    assert goes_in_chunks(WASL(), 10**8)
    assert not goes_in_chunks(WASL(), 10**6)
