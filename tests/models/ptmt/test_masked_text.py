"""Masked text of batches: which places, at which rates, and from which seed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import equal_batches
from hypothesis import given
from hypothesis import strategies as st
from template_batches import LEVEL_SIZES, MASK, TEMPLATE, collate, documents, example, slot_tokens

from ptmt_lightning.models.ptmt.collator import PTMTCollator
from ptmt_lightning.models.ptmt.module import PTMT


def test_seed_epoch_and_rows_decide_the_masks() -> None:
    case = {"mlm_probability": 0.3, "p_label": 0.5, "seed": 3}
    assert equal_batches(collate(documents(), **case), collate(documents(), **case))


def test_masks_do_not_depend_on_what_ran_before() -> None:
    collator = PTMTCollator(TEMPLATE, mlm_probability=0.3, p_label=0.5, mlm_slots=True, seed=0)
    first = collator(documents())
    collator(documents(epoch=1))
    torch.rand(3)
    np.random.default_rng(0).random(3)
    assert equal_batches(collator(documents()), first)


@pytest.mark.parametrize("mlm_slots", [False, True])
@pytest.mark.parametrize(("seed", "epoch", "first_row"), [(1, 0, 0), (0, 1, 0), (0, 0, 8)])
def test_another_seed_epoch_or_row_gives_other_masks(seed: int, epoch: int, first_row: int, mlm_slots: bool) -> None:
    case = {"mlm_probability": 0.3, "p_label": 0.5, "mlm_slots": mlm_slots}
    one = collate(documents(), **case)
    other = collate(documents(epoch=epoch, first_row=first_row), **case, seed=seed)
    assert not torch.equal(one.input_ids, other.input_ids)
    assert not torch.equal(one.slots, other.slots)


@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=6),
    probability=st.sampled_from([0.05, 0.15, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
def test_only_text_is_masked_and_the_index_finds_it(lengths: list[int], probability: float, seed: int) -> None:
    examples = [example(range(10, 10 + length), row=row) for row, length in enumerate(lengths)]
    plain = collate(examples)
    masked = collate(examples, mlm_probability=probability, seed=seed)

    # Which places of [B, L] the flat index names, by way of the positions.
    document, place = masked.mlm_index // masked.positions.shape[1], masked.mlm_index % masked.positions.shape[1]
    column = masked.positions[document, place]
    texts = torch.tensor(lengths).clamp_max(TEMPLATE.text_budget)
    assert (place >= len(LEVEL_SIZES)).all()
    assert ((column >= 1) & (column <= texts[document])).all()
    assert torch.equal(plain.input_ids[document, column], masked.mlm_ids)
    assert torch.equal(masked.positions.flatten()[masked.mlm_index], column)
    assert len(set(zip(document.tolist(), column.tolist(), strict=True))) == len(masked.mlm_ids)

    restored = masked.input_ids.clone()
    restored[document, column] = masked.mlm_ids
    assert torch.equal(restored, plain.input_ids)
    assert torch.equal(masked.positions[:, : len(LEVEL_SIZES)], plain.positions)
    if probability == 1:
        assert len(masked.mlm_ids) == texts.sum()


def test_rates_are_15_percent_and_80_10_10() -> None:
    template = replace(TEMPLATE, num_text_tokens=30_000, prompt_ids=(30_000,), first_label_id=30_001, max_length=1000)
    examples = [example([5] * 900, row=row) for row in range(100)]
    batch = collate(examples, template, mlm_probability=0.15)
    now = batch.input_ids.gather(1, batch.positions).flatten()[batch.mlm_index]
    assert (batch.mlm_ids == 5).all()
    assert len(now) / 90_000 == pytest.approx(0.15, abs=0.01)
    assert (now == MASK).double().mean().item() == pytest.approx(0.8, abs=0.03)
    assert (now == 5).double().mean().item() == pytest.approx(0.1, abs=0.02)
    random_ids = now[(now != MASK) & (now != 5)]
    assert random_ids.max() < 30_000
    assert random_ids.double().mean().item() == pytest.approx(15_000, rel=0.1)


def test_evaluation_masks_nothing(toy_ptmt: PTMT) -> None:
    toy_ptmt.p_label, toy_ptmt.mlm_probability = 0.0, 1.0
    batch = toy_ptmt.collator(training=False)([example([7, 8, 9, 10], [0, 3, 10])])
    assert batch.input_ids[0, 1:5].tolist() == [7, 8, 9, 10]
    assert batch.mlm_index.numel() == batch.mlm_ids.numel() == 0
    assert batch.slots.all()
    assert (slot_tokens(batch) == toy_ptmt.template.mask_id).all()


def test_training_masks_as_the_model_says(toy_ptmt: PTMT) -> None:
    toy_ptmt.p_label, toy_ptmt.mlm_probability = 0.0, 1.0
    batch = toy_ptmt.collator(training=True, pad_to_multiple_of=8)([example([7, 8, 9, 10], [0, 3, 10])])
    assert batch.mlm_ids.tolist() == [7, 8, 9, 10]
    assert not batch.slots.any()
    assert batch.input_ids.shape[1] == 16
