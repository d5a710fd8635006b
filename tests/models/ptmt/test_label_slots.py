"""Label slots of batches: which show a true label, and which are masked-LM targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import equal_batches
from hypothesis import given
from hypothesis import strategies as st
from template_batches import FIRST_LABEL, LEVEL_SIZES, MASK, collate, documents, example, slot_tokens

from ptmt_lightning.models.ptmt.collator import PTMTBatch
from ptmt_lightning.models.ptmt.module import PTMT

# ---- unmasked slots ----


@given(
    labels=st.lists(st.sets(st.integers(0, 10), max_size=5), min_size=1, max_size=6),
    p_label=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    seed=st.integers(0, 100),
)
def test_slots_hold_a_true_label_of_their_level_or_the_mask(labels: list[set[int]], p_label: float, seed: int) -> None:
    examples = [example([7, 8], sorted(nodes), row=row) for row, nodes in enumerate(labels)]
    batch = collate(examples, p_label=p_label, seed=seed)
    levels = (range(0, 3), range(3, 10), range(10, 11))
    for nodes, tokens, stays in zip(labels, slot_tokens(batch).tolist(), batch.slots.tolist(), strict=True):
        for level, token, is_masked in zip(levels, tokens, stays, strict=True):
            true_tokens = {FIRST_LABEL + node for node in nodes if node in level}
            assert token == MASK if is_masked else token in true_tokens
            if p_label == 0:
                assert is_masked == (not true_tokens)
            if p_label == 1:
                assert is_masked


def test_half_of_the_slots_with_a_true_label_stay_masked_at_p_label_one_half() -> None:
    batch = collate([example([7], [0, 5], row=row) for row in range(2000)], p_label=0.5)
    assert batch.slots.double().mean(0).tolist() == pytest.approx([0.5, 0.5, 1.0], abs=0.05)
    both = (batch.slots[:, 0] & batch.slots[:, 1]).double().mean().item()
    assert both == pytest.approx(0.25, abs=0.05)  # levels are drawn independently


def test_true_labels_of_a_level_are_drawn_evenly() -> None:
    batch = collate([example([7], [3, 6, 9], row=row) for row in range(2000)], p_label=0.0)
    counts = slot_tokens(batch)[:, 1].bincount(minlength=FIRST_LABEL + 10)
    assert counts[[FIRST_LABEL + 3, FIRST_LABEL + 6, FIRST_LABEL + 9]].tolist() == pytest.approx([667] * 3, abs=80)


# ---- label slots as masked-LM targets ----


def slot_targets(batch: PTMTBatch) -> dict[tuple[int, int], int]:
    """The token to predict in each slot that is a masked-LM target, by document and level."""
    width = batch.positions.shape[1]
    targets = {}
    for index, token in zip(batch.mlm_index.tolist(), batch.mlm_ids.tolist(), strict=True):
        if index % width < len(LEVEL_SIZES):
            assert (index // width, index % width) not in targets
            targets[index // width, index % width] = token
    return targets


def without_slot_targets(batch: PTMTBatch) -> PTMTBatch:
    is_text = batch.mlm_index % batch.positions.shape[1] >= len(LEVEL_SIZES)
    return batch._replace(mlm_index=batch.mlm_index[is_text], mlm_ids=batch.mlm_ids[is_text])


label_sets = st.lists(st.sets(st.integers(0, 10), max_size=5), min_size=1, max_size=6)


@given(
    labels=label_sets,
    p_label=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    mlm_probability=st.sampled_from([0.0, 0.15, 1.0]),
    seed=st.integers(0, 100),
)
def test_slot_targets_are_true_labels_where_the_slot_stays_masked(
    labels: list[set[int]], p_label: float, mlm_probability: float, seed: int
) -> None:
    examples = [example([7, 8], sorted(nodes), row=row) for row, nodes in enumerate(labels)]
    batch = collate(examples, p_label=p_label, mlm_probability=mlm_probability, seed=seed, mlm_slots=True)
    levels = (range(0, 3), range(3, 10), range(10, 11))
    targets = slot_targets(batch)
    for row, (nodes, stays) in enumerate(zip(labels, batch.slots.tolist(), strict=True)):
        for level, of_level in enumerate(levels):
            true_tokens = {FIRST_LABEL + node for node in nodes if node in of_level}
            if stays[level] and true_tokens:
                assert targets.pop((row, level)) in true_tokens
                assert slot_tokens(batch)[row, level] == MASK
    assert not targets
    assert batch.mlm_index.dtype == batch.mlm_ids.dtype == torch.int64
    # Each target's place in the flattened [B * K] is that of its slot.
    columns = batch.positions.flatten()[batch.mlm_index]
    assert batch.attention_mask[batch.mlm_index // batch.positions.shape[1], columns].all()


@given(labels=label_sets, p_label=st.sampled_from([0.0, 0.5, 0.9]), seed=st.integers(0, 100))
def test_with_unmasked_slots_the_targets_are_all_that_slot_targets_add(
    labels: list[set[int]], p_label: float, seed: int
) -> None:
    examples = [example([7, 8, 9, 10], sorted(nodes), row=row) for row, nodes in enumerate(labels)]
    case = {"p_label": p_label, "mlm_probability": 0.3, "seed": seed}
    off, on = collate(examples, **case, mlm_slots=False), collate(examples, **case, mlm_slots=True)
    assert slot_targets(off) == {}
    assert equal_batches(without_slot_targets(on), off)


def test_without_masked_text_the_targets_are_all_that_slot_targets_add() -> None:
    off, on = collate(documents(), mlm_slots=False), collate(documents(), mlm_slots=True)
    assert off.mlm_index.numel() == 0
    assert equal_batches(without_slot_targets(on), off)
    assert slot_targets(on) == {
        (row, level): FIRST_LABEL + node for row in range(8) for level, node in enumerate((row % 3, 3 + row % 7))
    }


# Not tested: that text masks stay the same at p_label=1, too. They do not: the labels are drawn before the masks, and
# only where somebody wants them.


def test_slot_targets_are_drawn_evenly_and_levels_independently() -> None:
    batch = collate([example([7], [0, 1, 3, 6, 9], row=row) for row in range(2000)], mlm_slots=True)
    targets = slot_targets(batch)
    top = np.array([targets[row, 0] for row in range(2000)]) - FIRST_LABEL
    below = np.array([targets[row, 1] for row in range(2000)]) - FIRST_LABEL
    counts = np.array([[np.sum((top == a) & (below == b)) for b in (3, 6, 9)] for a in (0, 1)])
    assert counts.sum() == 2000
    assert counts.flatten().tolist() == pytest.approx([333] * 6, abs=70)


def test_slot_targets_are_drawn_evenly_where_other_slots_were_unmasked() -> None:
    batch = collate([example([7], [3, 6, 9], row=row) for row in range(3000)], mlm_slots=True, p_label=0.5)
    tokens = torch.tensor(list(slot_targets(batch).values())) - FIRST_LABEL
    assert len(tokens) == pytest.approx(1500, abs=120)
    assert tokens.bincount(minlength=10)[[3, 6, 9]].tolist() == pytest.approx([len(tokens) / 3] * 3, abs=80)


def test_slot_targets_change_with_the_epoch() -> None:
    examples = [[example([7], [3, 6, 9], row=row, epoch=epoch) for row in range(50)] for epoch in (0, 1)]
    one, other = (collate(some, mlm_slots=True) for some in examples)
    assert not torch.equal(one.mlm_ids, other.mlm_ids)


def test_slot_targets_come_from_the_model_and_never_in_evaluation(toy_ptmt: PTMT) -> None:
    toy_ptmt.mlm_slots = True
    examples = [example([7, 8, 9, 10], [0, 3, 10]), example([7], [2], row=1)]
    evaluated = toy_ptmt.collator(training=False)(examples)
    assert evaluated.mlm_index.numel() == evaluated.mlm_ids.numel() == 0
    first = toy_ptmt.template.first_label_id
    targets = slot_targets(toy_ptmt.collator(training=True)(examples))
    assert targets == {(0, 0): first, (0, 1): first + 3, (0, 2): first + 10, (1, 0): first + 2}
    toy_ptmt.mlm_slots = False
    assert slot_targets(toy_ptmt.collator(training=True)(examples)) == {}
    toy_ptmt.mlm_slots = True
    toy_ptmt.mlm_probability = toy_ptmt.p_label = 0.0
    unmasked = toy_ptmt.collator(training=True)(examples)
    assert unmasked.mlm_index.numel() == 0  # a slot that shows its answer is no target
