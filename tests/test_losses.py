"""Losses against their formulas, written out naively in float64."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ptmt_lightning.losses import (
    WASL,
    CountScope,
    CrossEntropy,
    count_l1,
    label_excess,
    level_sums,
    masked_lm,
    masked_mean,
    wasl,
)

LEVEL_SIZES = (2, 3)
BCE: dict[str, Any] = {"gamma_pos": 0, "gamma_neg": 0, "margin": 0}
ASYMMETRIC: dict[str, Any] = {"gamma_pos": 1, "gamma_neg": 4, "margin": 0.05}


def direct_wasl(p: float, y: int, *, gamma_pos: float, gamma_neg: float, margin: float, weight: float) -> float:
    """Eq. 1 with its minus sign, as it is printed."""
    pm = max(p - margin, 0.0)
    log_p, log_not_pm = torch.tensor([p, 1 - pm], dtype=torch.float64).log().tolist()
    return float(-(y * weight * (1 - p) ** gamma_pos * log_p + (1 - y) * pm**gamma_neg * log_not_pm))


def random_case(num_documents: int = 4, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Logits and bool targets on two levels; every document has one label a level, or none on the second."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(num_documents, sum(LEVEL_SIZES), generator=generator, dtype=torch.float64).to(dtype)
    targets = torch.zeros(num_documents, sum(LEVEL_SIZES), dtype=torch.bool)
    for document in range(num_documents):
        targets[document, document % 2] = True
        if document % 4 != 3:
            targets[document, 2 + document % 3] = True
    return logits, targets


def counted(p: Tensor, targets: Tensor, sizes: Sequence[int], slots: Tensor, scope: CountScope = "level") -> Tensor:
    return count_l1(label_excess(p, targets, sizes), slots, scope)


# ---- wasl ----


@given(
    logit=st.floats(-8, 8),
    y=st.sampled_from([0, 1]),
    gamma_pos=st.floats(0, 10),
    gamma_neg=st.floats(0, 10),
    margin=st.floats(0, 0.3),
    weight=st.floats(0, 5),
)
def test_wasl_equals_the_direct_formula(
    logit: float, y: int, gamma_pos: float, gamma_neg: float, margin: float, weight: float
) -> None:
    logits = torch.tensor([logit], dtype=torch.float64)
    case = {"gamma_pos": gamma_pos, "gamma_neg": gamma_neg, "margin": margin, "weight": weight}
    expected = direct_wasl(logits.sigmoid().item(), y, **case)
    assert wasl(logits, torch.tensor([y]), **case).item() == pytest.approx(expected, rel=1e-9, abs=1e-10)


def test_wasl_without_focus_and_margin_is_binary_cross_entropy() -> None:
    logits, targets = random_case(8)
    expected = F.binary_cross_entropy_with_logits(logits, targets.float(), reduction="none")
    torch.testing.assert_close(wasl(logits, targets, **BCE), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("margin", [0, 0.05, 0.3])
@pytest.mark.parametrize("gamma_neg", [0, 0.5, 1, 10])
@pytest.mark.parametrize("gamma_pos", [0, 0.5, 10])
def test_wasl_and_its_gradient_are_finite_at_extreme_logits(
    dtype: torch.dtype, margin: float, gamma_neg: float, gamma_pos: float
) -> None:
    logits = torch.tensor([-1e4, -100, -20, 0, 20, 100, 1e4], dtype=dtype).requires_grad_()
    for y in (0, 1):
        loss = wasl(logits, torch.full((7,), y), gamma_pos=gamma_pos, gamma_neg=gamma_neg, margin=margin, weight=2.0)
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        assert loss.dtype == torch.float32
        assert loss.isfinite().all()
        assert gradient.isfinite().all()


def test_wasl_is_finite_for_a_margin_below_float32_resolution() -> None:
    logits = torch.tensor([20.0, 100.0, 1e4], requires_grad=True)
    for y in (0, 1):
        loss = wasl(logits, torch.full((3,), y), gamma_pos=1, gamma_neg=4, margin=1e-8)
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        assert loss.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gradient_is_finite_where_the_shifted_probability_is_zero(dtype: torch.dtype) -> None:
    margin = 0.25
    at_margin = torch.logit(torch.tensor(margin)).to(dtype)
    logits = (at_margin + torch.linspace(-0.01, 0.01, 101).to(dtype)).requires_grad_()
    loss = wasl(logits, torch.zeros(101), gamma_pos=1, gamma_neg=0.5, margin=margin)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("case", [BCE, ASYMMETRIC, {"gamma_pos": 2.5, "gamma_neg": 0.5, "margin": 0.2}])
def test_gradient_of_wasl_equals_finite_differences(case: dict[str, Any]) -> None:
    logits = torch.tensor([-4.0, -2.2, -0.5, 0.3, 1.7, 5.0], dtype=torch.float64, requires_grad=True)
    for y in (0, 1):
        targets = torch.full((6,), y)
        assert torch.autograd.gradcheck(lambda x, targets=targets: wasl(x, targets, weight=1.5, **case), (logits,))


def test_half_precision_logits_give_the_loss_of_the_same_float32_logits() -> None:
    logits, targets = random_case(dtype=torch.float16)
    torch.testing.assert_close(wasl(logits, targets, **ASYMMETRIC), wasl(logits.float(), targets, **ASYMMETRIC))


def test_weight_scales_only_the_positive_term() -> None:
    logits, targets = random_case()
    one, three = wasl(logits, targets, **ASYMMETRIC), wasl(logits, targets, weight=3.0, **ASYMMETRIC)
    torch.testing.assert_close(three, torch.where(targets, 3 * one, one))


# ---- the WASL module ----


@pytest.mark.parametrize(
    ("level_weights", "expected"),
    [([1.0, 2.5], [1.0, 2.5]), ({"first": 1.0, "step": 0.5}, [1.0, 1.5]), ({"first": 2, "step": -1}, [2, 1])],
)
def test_wasl_sums_each_level_under_its_weight(
    level_weights: Sequence[float] | Mapping[str, float], expected: list[float]
) -> None:
    loss = WASL(**ASYMMETRIC, level_weights=level_weights)
    logits, targets = random_case()
    top = wasl(logits[:, :2], targets[:, :2], weight=expected[0], **ASYMMETRIC).sum(-1)
    below = wasl(logits[:, 2:], targets[:, 2:], weight=expected[1], **ASYMMETRIC).sum(-1)
    assert loss.weights_of_levels(2) == pytest.approx(expected)
    torch.testing.assert_close(loss(logits, targets, LEVEL_SIZES), torch.stack([top, below], dim=-1))


def test_a_list_of_another_length_than_the_levels_is_refused() -> None:
    loss = WASL(**ASYMMETRIC, level_weights=[1.0, 1.5, 2.0])
    message = "loss.level_weights=[1.0, 1.5, 2.0]: expected 2 numbers, one a level of the taxonomy"
    with pytest.raises(ValueError, match=re.escape(message)):
        loss(*random_case(), LEVEL_SIZES)


@pytest.mark.parametrize(
    ("level_weights", "message"),
    [
        ({"first": 1}, "expected the keys 'first' and 'step'"),
        ({"first": 1, "step": 1, "last": 2}, "expected the keys 'first' and 'step'"),
        ({"first": -1, "step": 1}, "loss.level_weights.first=-1: expected a number >= 0"),
        ({"first": 1, "step": "big"}, "loss.level_weights.step='big': expected a number"),
        ([1, -2], "loss.level_weights[2]=-2: expected a number >= 0"),
        ([1, "2"], "loss.level_weights[2]='2': expected a number >= 0"),
        (1.5, "loss.level_weights=1.5: expected a list with one number a level, or first and step"),
        ("1,2", "loss.level_weights='1,2': expected a list with one number a level, or first and step"),
    ],
)
def test_bad_level_weights_are_refused(level_weights: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        WASL(**ASYMMETRIC, level_weights=level_weights)


def test_a_step_that_makes_a_level_negative_is_refused() -> None:
    loss = WASL(**ASYMMETRIC, level_weights={"first": 1, "step": -0.75})
    with pytest.raises(ValueError, match=r"loss\.level_weights"):
        loss.weights_of_levels(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma_pos": -1}, "loss.gamma_pos=-1: expected a number >= 0"),
        ({"gamma_neg": float("nan")}, "loss.gamma_neg=nan: expected a number >= 0"),
        ({"margin": 1}, "loss.margin=1: expected a number in [0, 1)"),
        ({"margin": True}, "loss.margin=True: expected a number in [0, 1)"),
    ],
)
def test_bad_settings_of_wasl_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        WASL(**(ASYMMETRIC | change), level_weights=[1])


# ---- the other terms ----


def test_count_l1_is_the_distance_of_expected_and_true_counts() -> None:
    probabilities = torch.tensor([[0.9, 0.2, 0.5, 0.5, 0.25], [0.0, 0.1, 0.0, 0.0, 0.0]])
    targets = torch.tensor([[1, 0, 1, 1, 0], [1, 1, 0, 0, 0]], dtype=torch.bool)
    everywhere = torch.ones(2, 2, dtype=torch.bool)
    by_level = (abs(1.1 - 1) + abs(1.25 - 2) + abs(0.1 - 2)) / 2
    together = (abs(1.1 + 1.25 - 3) + abs(0.1 - 2)) / 2
    assert counted(probabilities, targets, LEVEL_SIZES, everywhere, "level").item() == pytest.approx(by_level)
    assert counted(probabilities, targets, LEVEL_SIZES, everywhere, "all").item() == pytest.approx(together)


class CountCase(NamedTuple):
    """What the count loss takes besides its scope."""

    probabilities: Tensor  # [B, V]
    targets: Tensor  # bool [B, V]
    level_sizes: list[int]
    slots: Tensor  # bool [B, D]


@st.composite
def count_cases(draw: st.DrawFn, max_levels: int = 4) -> CountCase:
    """Random probabilities, truth and slots on random levels."""
    level_sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=max_levels))
    num_documents = draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    probabilities, labels = torch.rand(2, num_documents, sum(level_sizes), generator=generator)
    slots = torch.rand(num_documents, len(level_sizes), generator=generator) < draw(st.sampled_from([0.3, 0.7, 1.0]))
    return CountCase(probabilities, labels < 0.4, level_sizes, slots)


def direct_count_l1(case: CountCase, scope: CountScope) -> float:
    """One document, level and node at a time; slots that show their answer count nowhere."""
    total = 0.0
    for p_V, y_V, slot_D in zip(case.probabilities.tolist(), case.targets.tolist(), case.slots.tolist(), strict=True):
        start, excess = 0, []
        for size, counts in zip(case.level_sizes, slot_D, strict=True):
            if counts:
                excess.append(sum(p_V[start : start + size]) - sum(y_V[start : start + size]))
            start += size
        total += sum(map(abs, excess)) if scope == "level" else abs(sum(excess))
    return total / len(case.probabilities)


@pytest.mark.parametrize("scope", ["level", "all"])
@given(case=count_cases())
def test_count_l1_equals_the_direct_loop(scope: CountScope, case: CountCase) -> None:
    assert counted(*case, scope).item() == pytest.approx(direct_count_l1(case, scope), rel=1e-5, abs=1e-5)


@given(case=count_cases())
def test_count_over_all_levels_is_never_above_the_count_by_level(case: CountCase) -> None:
    assert counted(*case, "all") <= counted(*case, "level") + 1e-5
    assert torch.equal(counted(*case), counted(*case, "level"))  # the default, as before


@given(case=count_cases(max_levels=1))
def test_on_one_level_both_scopes_count_the_same(case: CountCase) -> None:
    torch.testing.assert_close(counted(*case, "all"), counted(*case, "level"))


@pytest.mark.parametrize("scope", ["level", "all"])
def test_no_gradient_of_the_count_reaches_slots_that_show_their_answer(scope: CountScope) -> None:
    probabilities = torch.full((2, 5), 0.4, requires_grad=True)
    slots = torch.tensor([[True, False], [False, False]])
    counted(probabilities, torch.zeros(2, 5).bool(), LEVEL_SIZES, slots, scope).backward()
    assert probabilities.grad is not None
    assert probabilities.grad.tolist() == [[0.5, 0.5, 0, 0, 0], [0] * 5]


def test_counts_too_many_and_too_few_cancel_over_all_levels_only() -> None:
    probabilities = torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0]])
    targets = torch.tensor([[True, False, True, False, False]])
    slots = torch.ones(1, 2, dtype=torch.bool)
    assert counted(probabilities, targets, LEVEL_SIZES, slots, "level").item() == 2
    assert counted(probabilities, targets, LEVEL_SIZES, slots, "all").item() == 0


def test_level_sums_add_up_each_slice() -> None:
    values = torch.arange(10.0).reshape(2, 5)
    assert level_sums(values, LEVEL_SIZES).tolist() == [[0 + 1, 2 + 3 + 4], [5 + 6, 7 + 8 + 9]]


def test_masked_lm_is_the_mean_negative_log_probability() -> None:
    logits, _ = random_case(6, torch.float16)
    token_ids = torch.tensor([0, 4, 2, 2, 1, 3])
    log_p = logits.double().softmax(-1).log()
    expected = -sum(log_p[n, token].item() for n, token in enumerate(token_ids)) / 6
    assert masked_lm(logits, token_ids).item() == pytest.approx(expected, rel=1e-5)


def test_masked_lm_of_no_tokens_is_zero_with_finite_gradient() -> None:
    states = torch.zeros(3, 4, requires_grad=True)
    output = torch.zeros(7, 4, requires_grad=True)
    loss = masked_lm(states[:0] @ output.T, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0
    assert states.grad is not None
    assert output.grad is not None
    assert states.grad.eq(0).all()
    assert output.grad.eq(0).all()


def test_masked_mean_ignores_slots_that_show_their_answer() -> None:
    loss_BD = torch.tensor([[1.0, 10.0], [100.0, 1000.0], [5.0, 7.0]], requires_grad=True)
    slots_BD = torch.tensor([[True, False], [False, True], [False, False]])
    mean = masked_mean(loss_BD, slots_BD)
    mean.backward()
    assert mean.item() == pytest.approx((1 + 1000) / 3)
    assert loss_BD.grad is not None
    torch.testing.assert_close(loss_BD.grad, slots_BD / 3)


# ---- cross-entropy ----


def test_cross_entropy_equals_torch_with_one_more_logit_of_zero() -> None:
    logits, targets = random_case(8)
    expected = []
    for nodes in (slice(0, 2), slice(2, 5)):
        size = nodes.stop - nodes.start
        level = torch.cat([logits[:, nodes], torch.zeros(8, 1)], dim=-1)
        classes = [row.index(True) if any(row) else size for row in targets[:, nodes].tolist()]
        expected.append(F.cross_entropy(level, torch.tensor(classes), reduction="none"))
    torch.testing.assert_close(CrossEntropy()(logits, targets, LEVEL_SIZES), torch.stack(expected, dim=-1))


def test_a_path_that_ended_trains_all_labels_of_the_level_down() -> None:
    logits = torch.zeros(1, 5, requires_grad=True)
    targets = torch.tensor([[True, False, False, False, False]])
    loss = CrossEntropy()(logits, targets, LEVEL_SIZES)
    loss[:, 1].sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(loss[0, 1], torch.tensor(4.0).log())
    torch.testing.assert_close(logits.grad, torch.tensor([[0, 0, 0.25, 0.25, 0.25]]))


def test_cross_entropy_is_finite_at_extreme_logits() -> None:
    logits = torch.tensor([[1e4, -1e4, 1e4, -1e4, 0]], dtype=torch.float16, requires_grad=True)
    targets = torch.tensor([[False, True, False, False, False]])
    loss = CrossEntropy()(logits, targets, LEVEL_SIZES)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()


def test_a_loss_names_its_decision() -> None:
    assert CrossEntropy().decision.name == "level_softmax"
    assert WASL(**ASYMMETRIC, level_weights=[1]).decision.name == "sigmoid"
