"""Batches of like length: who gets which row, in one process and over several ranks."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ptmt_lightning.data.sampler import LengthBatchSampler

Lengths = npt.NDArray[np.int64]
Batches = list[list[tuple[int, int]]]

quick = settings(max_examples=100)


class Case(NamedTuple):
    lengths: Lengths
    batch_size: int
    num_replicas: int
    seed: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    num_replicas = draw(st.integers(1, 5))
    lengths = draw(st.lists(st.integers(0, 9), min_size=num_replicas, max_size=120))
    return Case(np.array(lengths), draw(st.integers(1, 9)), num_replicas, draw(st.integers(0, 3)))


def samplers(case: Case, *, shuffle: bool) -> list[LengthBatchSampler]:
    """One a rank."""
    return [
        LengthBatchSampler(
            case.lengths,
            batch_size=case.batch_size,
            shuffle=shuffle,
            seed=case.seed,
            num_replicas=case.num_replicas,
            rank=rank,
        )
        for rank in range(case.num_replicas)
    ]


def rows_of(batches: Batches) -> list[int]:
    return [row for batch in batches for _, row in batch]


def training_sampler(lengths: Lengths, **changes: Any) -> LengthBatchSampler:
    settings: dict[str, Any] = {"batch_size": 4, "shuffle": True, "seed": 0}
    return LengthBatchSampler(lengths, **settings | changes)


def skewed_lengths(size: int) -> Lengths:
    return np.random.default_rng(0).lognormal(mean=3, sigma=1, size=size).astype(np.int64) + 1


def padding(lengths: Lengths, batches: list[list[int]]) -> int:
    return sum(int(lengths[rows].max()) * len(rows) - int(lengths[rows].sum()) for rows in batches)


# ---- training ----


@quick
@given(cases())
def test_training_uses_each_row_at_most_once_and_all_but_a_few(case: Case) -> None:
    rows = [row for sampler in samplers(case, shuffle=True) for row in rows_of(list(sampler))]
    assert len(set(rows)) == len(rows)
    assert set(rows) <= set(range(len(case.lengths)))
    assert len(case.lengths) - len(rows) < case.num_replicas


@quick
@given(cases())
def test_training_ranks_have_as_many_batches_as_len_says(case: Case) -> None:
    for sampler in samplers(case, shuffle=True):
        batches = list(sampler)
        assert len(batches) == len(sampler) == len(samplers(case, shuffle=True)[0])
        assert all(1 <= len(batch) <= case.batch_size for batch in batches)


@quick
@given(cases(), st.integers(0, 5))
def test_batches_are_tied_to_seed_and_epoch(case: Case, epoch: int) -> None:
    first, again = samplers(case, shuffle=True)[0], samplers(case, shuffle=True)[0]
    list(again)  # what was drawn before does not matter
    first.set_epoch(epoch)
    again.set_epoch(epoch)
    batches = list(first)
    assert batches == list(again)
    assert {pair[0] for batch in batches for pair in batch} <= {epoch}


def test_another_epoch_draws_other_batches() -> None:
    sampler = training_sampler(skewed_lengths(200))
    before = {frozenset(row for _, row in batch) for batch in sampler}
    sampler.set_epoch(1)
    after = {frozenset(row for _, row in batch) for batch in sampler}
    assert len(before & after) < len(before) / 2


def test_another_seed_draws_other_batches() -> None:
    lengths = skewed_lengths(200)
    assert list(training_sampler(lengths, seed=0)) != list(training_sampler(lengths, seed=1))


def test_batches_do_not_come_in_order_of_length() -> None:
    lengths = np.arange(200)
    longest = [max(lengths[row] for _, row in batch) for batch in training_sampler(lengths)]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


def test_only_the_given_rows_are_drawn() -> None:
    rows = np.array([3, 5, 8, 13, 21, 34, 55, 89])
    sampler = training_sampler(skewed_lengths(100), rows=rows)
    assert sorted(rows_of(list(sampler))) == rows.tolist()
    assert len(sampler) == 2


def test_the_rows_left_out_differ_from_epoch_to_epoch() -> None:
    """9 rows for 2 ranks x 4: one is left out, and over the epochs every row has to be seen."""
    ranks = [training_sampler(np.arange(1, 10), num_replicas=2, rank=rank) for rank in range(2)]
    left_out = set()
    for epoch in range(20):
        for sampler in ranks:
            sampler.set_epoch(epoch)
        left_out |= set(range(9)) - {row for sampler in ranks for row in rows_of(list(sampler))}
    assert len(left_out) > 1


@pytest.mark.parametrize("shuffle", [True, False])
def test_little_padding_on_skewed_lengths(shuffle: bool) -> None:
    lengths = skewed_lengths(5000)
    batches = [[row for _, row in batch] for batch in training_sampler(lengths, batch_size=16, shuffle=shuffle)]
    order = np.random.default_rng(1).permutation(5000)
    at_random = [order[i : i + 16].tolist() for i in range(0, 5000, 16)]
    assert padding(lengths, batches) < 0.1 * padding(lengths, at_random)


def test_ranks_get_like_lengths_at_each_step() -> None:
    lengths = skewed_lengths(5000)
    ranks = [list(training_sampler(lengths, batch_size=16, num_replicas=2, rank=rank)) for rank in range(2)]
    longest = np.array([[max(lengths[row] for _, row in batch) for batch in batches] for batches in ranks])
    assert np.abs(longest[0] - longest[1]).mean() < 0.1 * longest.mean()


# ---- evaluation ----


@quick
@given(cases())
def test_evaluation_yields_each_row_once_over_all_ranks(case: Case) -> None:
    rows = [row for sampler in samplers(case, shuffle=False) for row in rows_of(list(sampler))]
    assert sorted(rows) == list(range(len(case.lengths)))


@quick
@given(cases())
def test_evaluation_ranks_have_as_many_batches_as_len_says(case: Case) -> None:
    # A batch of one row can't be split further when a rank has a row less than the others.
    most = case.batch_size if case.num_replicas == 1 else max(case.batch_size, 2)
    for sampler in samplers(case, shuffle=False):
        batches = list(sampler)
        assert len(batches) == len(sampler) == len(samplers(case, shuffle=False)[0])
        assert all(1 <= len(batch) <= most for batch in batches)


def test_a_few_evaluation_batches_hold_short_and_long_documents() -> None:
    sampler = training_sampler(skewed_lengths(2000), shuffle=False)
    first = [sampler.lengths[rows_of([batch])].mean() for batch in list(sampler)[:20]]
    assert min(first) < sampler.lengths.mean() < max(first)


def test_evaluation_is_the_same_in_every_epoch() -> None:
    sampler = training_sampler(skewed_lengths(50), shuffle=False)
    before = rows_of(list(sampler))
    sampler.set_epoch(3)
    assert rows_of(list(sampler)) == before


# ---- refusals ----


@pytest.mark.parametrize("shuffle", [True, False])
def test_fewer_rows_than_ranks_are_refused(shuffle: bool) -> None:
    message = (
        "2 document(s) for 3 devices: expected at least one a device; "
        "lower trainer.devices or raise dataset.train_fraction"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        training_sampler(np.array([5, 6]), shuffle=shuffle, num_replicas=3, rank=0)


@pytest.mark.parametrize("num_batches", [0, 3, 9, 10])
def test_an_epoch_goes_on_where_it_was_left(num_batches: int) -> None:
    lengths = np.arange(40) % 7
    whole = LengthBatchSampler(lengths, batch_size=4, shuffle=True, seed=1)
    whole.set_epoch(2)
    expected = list(whole)[num_batches:]
    whole.set_epoch(3)
    following = list(whole)
    resumed = LengthBatchSampler(lengths, batch_size=4, shuffle=True, seed=1)
    resumed.start_at(2, num_batches)
    assert len(resumed) == 10
    if num_batches < 10:
        assert list(resumed) == expected
        resumed.set_epoch(3)
    assert list(resumed) == following
