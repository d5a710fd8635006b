"""What scores mean: probabilities, predictions, and where scores start."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ptmt_lightning.decisions import DECISIONS, ConditionalSoftmax, LevelSoftmax, Sigmoid, per_node
from ptmt_lightning.losses import level_sums

LEVEL_SIZES = (2, 3)


def test_values_of_levels_are_repeated_for_their_nodes() -> None:
    values = per_node([0.25, 0.5, 4], (3, 1, 2), torch.device("cpu"))
    assert values.tolist() == [0.25, 0.25, 0.25, 0.5, 4, 4]
    assert values.dtype == torch.float32


def test_decisions_are_found_by_their_names() -> None:
    assert {name: type(decision) for name, decision in DECISIONS.items()} == {
        "sigmoid": Sigmoid, "level_softmax": LevelSoftmax, "conditional_softmax": ConditionalSoftmax,
    }  # fmt: skip
    assert [decision.single_label for decision in DECISIONS.values()] == [False, True, True]


def test_sigmoid_predicts_above_the_threshold_of_the_level() -> None:
    logits = torch.tensor([[0.0, 3.0, -1.0, 0.0, 1.0]], dtype=torch.float16)
    probabilities = Sigmoid().probabilities(logits, LEVEL_SIZES)
    assert probabilities.dtype == torch.float32
    assert probabilities[0].tolist() == pytest.approx([1 / (1 + math.exp(-x)) for x in (0, 3, -1, 0, 1)])
    assert Sigmoid().predict(probabilities, LEVEL_SIZES, [0.5, 0.26]).tolist() == [[False, True, True, True, True]]


def test_probabilities_of_half_precision_scores_are_float32_sigmoids() -> None:
    decision = Sigmoid()
    logits = torch.tensor([[0.0, 0.1, -0.1, 4.0, -4.0]], dtype=torch.bfloat16)
    probabilities = decision.probabilities(logits, LEVEL_SIZES)
    torch.testing.assert_close(probabilities, logits.float().sigmoid())
    assert decision.predict(probabilities, LEVEL_SIZES, [0.5, 0.5]).tolist() == [[False, True, False, True, False]]


def test_each_level_has_its_own_threshold_which_must_be_exceeded() -> None:
    decision = Sigmoid()
    probabilities = torch.tensor([[0.25, 0.3, 0.25, 0.75, 0.8]])
    assert decision.predict(probabilities, LEVEL_SIZES, [0.25, 0.75]).tolist() == [[False, True, False, False, True]]
    assert decision.predict(probabilities, LEVEL_SIZES, [0.75, 0.25]).tolist() == [[False, False, False, True, True]]


def test_scores_start_as_if_each_level_had_one_label() -> None:
    for decision in (Sigmoid(), LevelSoftmax()):
        start = decision.initial_logits(LEVEL_SIZES)[None]
        expected = level_sums(decision.probabilities(start, LEVEL_SIZES), LEVEL_SIZES)
        assert ((expected > 0.6) & (expected <= 1)).all()
    assert Sigmoid().initial_logits(LEVEL_SIZES).exp().tolist() == pytest.approx([1 / 2, 1 / 2, 1 / 3, 1 / 3, 1 / 3])


@given(st.lists(st.floats(-20, 20, width=32), min_size=5, max_size=5))
def test_level_softmax_predicts_at_most_one_label_a_level_and_none_where_the_end_wins(scores: list[float]) -> None:
    decision, logits = LevelSoftmax(), torch.tensor([scores])
    probabilities = decision.probabilities(logits, LEVEL_SIZES)
    predicted = decision.predict(probabilities, LEVEL_SIZES, thresholds=[0.99, 0.99])
    for level_logits, level_predicted in zip(
        logits.split(LEVEL_SIZES, dim=-1), predicted.split(LEVEL_SIZES, dim=-1), strict=True
    ):
        assert level_predicted.sum() <= 1
        best = level_logits.max().item()
        if best > 1e-3:
            assert level_predicted[0, level_logits.argmax()]
        elif best < -1e-3:
            assert not level_predicted.any()


@given(st.lists(st.floats(-10, 10, width=32), min_size=5, max_size=5))
def test_level_softmax_probabilities_leave_room_for_the_end(scores: list[float]) -> None:
    probabilities = LevelSoftmax().probabilities(torch.tensor([scores], dtype=torch.float64), LEVEL_SIZES)
    assert probabilities.dtype == torch.float32
    assert (probabilities >= 0).all()
    assert (level_sums(probabilities, LEVEL_SIZES) < 1).all()
