"""Texts with holes, and what has to be written into them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptmt_lightning.models.ptmt.denoising import Tokens, corrupt_spans, infill_text

SENTINELS = tuple(range(1000, 1100))
MASK = 999


def text_of(length: int) -> Tokens:
    return np.arange(length, dtype=np.int32)


def filled(holed: Tokens, written: Tokens) -> list[int]:
    """The text with each sentinel replaced by what was written after it."""
    spans: dict[int, list[int]] = {}
    for token in written.tolist():
        if token in SENTINELS:
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    return [token for kept in holed.tolist() for token in spans.get(kept, [kept])]


@given(st.integers(0, 300), st.floats(0, 1), st.integers(0, 10))
def test_spans_written_into_their_holes_give_the_text(length: int, probability: float, seed: int) -> None:
    text = text_of(length)
    holed, written = corrupt_spans(text, SENTINELS, probability, np.random.default_rng(seed))
    assert filled(holed, written) == text.tolist()
    used = [token for token in holed.tolist() if token in SENTINELS]
    assert used == list(SENTINELS[: len(used)])
    assert (np.diff(np.flatnonzero(np.isin(holed, SENTINELS))) > 1).all()  # a token between any two holes
    num_taken = max(0, min(round(length * probability), length - 1))
    assert len(text) - (len(holed) - len(used)) == num_taken
    if num_taken:
        assert written[-1] == SENTINELS[len(used)]
        assert len(written) == num_taken + len(used) + 1
    else:
        assert len(written) == 0


def test_spans_are_three_tokens_long_on_average() -> None:
    rng = np.random.default_rng(0)
    lengths, taken = [], 0
    for _ in range(200):
        holed, _ = corrupt_spans(text_of(200), SENTINELS, 0.15, rng)
        num_spans = int(np.isin(holed, SENTINELS).sum())
        lengths.append(30 / num_spans)
        taken += 200 - (len(holed) - num_spans)
    assert np.mean(lengths) == pytest.approx(3)
    assert taken == 200 * 30


def test_every_place_can_be_a_hole() -> None:
    rng = np.random.default_rng(0)
    counts = np.zeros(20)
    for _ in range(2000):
        holed, _ = corrupt_spans(text_of(20), SENTINELS, 0.3, rng)
        counts[~np.isin(np.arange(20), holed)] += 1
    assert counts.min() > 0.4 * counts.mean()  # fewer at the ends, where spans are cut short


def test_no_more_spans_than_sentinels() -> None:
    _, written = corrupt_spans(text_of(100), SENTINELS[:4], 0.5, np.random.default_rng(0))
    assert [token for token in written.tolist() if token in SENTINELS] == list(SENTINELS[:4])


@given(st.integers(0, 300), st.floats(0, 1), st.integers(0, 10))
def test_infilling_keeps_the_rest_in_order(length: int, probability: float, seed: int) -> None:
    holed = infill_text(text_of(length), MASK, probability, np.random.default_rng(seed))
    kept = holed[holed != MASK]
    assert (np.diff(kept) > 0).all()
    num_taken = length - len(kept)
    assert num_taken <= round(length * probability)
    assert (np.diff(np.flatnonzero(holed == MASK)) > 1).all()
    # what is missing is missing at a mask
    gaps = np.diff(np.array([-1, *kept, length])) > 1
    places = np.searchsorted(np.flatnonzero(holed != MASK), np.flatnonzero(holed == MASK))
    assert set(np.flatnonzero(gaps)) <= set(places)


def test_infilling_takes_its_share_in_poisson_spans() -> None:
    rng = np.random.default_rng(0)
    taken, spans = [], []
    for _ in range(500):
        holed = infill_text(text_of(200), MASK, 0.3, rng)
        taken.append(200 - (holed != MASK).sum())
        spans.append((holed == MASK).sum())
    assert np.mean(taken) == pytest.approx(60)
    assert np.mean(spans) == pytest.approx(60 / 3, rel=0.1)


def test_no_token_is_taken_from_a_short_text_at_a_low_share() -> None:
    rng = np.random.default_rng(0)
    assert infill_text(text_of(3), MASK, 0.1, rng).tolist() == [0, 1, 2]
    assert [part.tolist() for part in corrupt_spans(text_of(3), SENTINELS, 0.1, rng)] == [[0, 1, 2], []]
