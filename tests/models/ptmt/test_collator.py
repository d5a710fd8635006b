"""What batches look like: template, masks, shown labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TOY_DOCUMENTS, equal_batches, ptmt_settings, tiny_source
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertTokenizer

from ptmt_lightning.backbones import Backbone, word_tokenizer
from ptmt_lightning.data.document import Example
from ptmt_lightning.models.ptmt.collator import PTMTBatch, PTMTCollator
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.models.ptmt.template import Template
from ptmt_lightning.taxonomy import Taxonomy

CLS, SEP, MASK, PAD = 2, 3, 4, 0
FIRST_PROMPT, FIRST_LABEL = 50, 53
LEVEL_SIZES = (3, 7, 1)  # nodes 0-2, 3-9 and 10

TEMPLATE = Template(
    form="encoder",
    prefix_ids=(CLS,),
    separator_ids=(SEP,),
    end_ids=(SEP,),
    mask_id=MASK,
    pad_id=PAD,
    prompt_ids=(50, 51, 52),
    first_label_id=FIRST_LABEL,
    level_sizes=LEVEL_SIZES,
    num_text_tokens=FIRST_PROMPT,
    max_length=24,
)
TAIL = [SEP, 50, 51, 52, MASK, MASK, MASK, SEP]


def example(text: Sequence[int], nodes: Sequence[int] = (0,), *, row: int = 0, epoch: int = 0) -> Example:
    """One tokenised document."""
    return Example(row, epoch, np.array(text, dtype=np.int32), np.array(nodes, dtype=np.int32))


def collate(examples: Sequence[Example], template: Template = TEMPLATE, **changes: Any) -> PTMTBatch:
    """A batch of a collator that masks nothing unless told."""
    arguments: dict[str, Any] = {"mlm_probability": 0.0, "p_label": 1.0, "mlm_slots": False, "seed": 0}
    return PTMTCollator(template, **arguments | changes)(examples)


def slot_tokens(batch: PTMTBatch) -> torch.Tensor:
    """What the slots hold, ``[B, D]``."""
    return batch.input_ids.gather(1, batch.positions[:, : len(LEVEL_SIZES)])


# ---- layout ----


def toy_tokenizer() -> BertTokenizer:
    return word_tokenizer((document["text"] for document in TOY_DOCUMENTS), 100)


def test_template_reads_as_in_section_2_1(toy_taxonomy: Taxonomy) -> None:
    tokenizer = toy_tokenizer()
    template = Template.add_to(tokenizer, toy_taxonomy, num_prompt_tokens=2, max_length=32)
    text = tokenizer("m n o", add_special_tokens=False)["input_ids"]
    batch = collate([example(text)], template)
    assert tokenizer.convert_ids_to_tokens(batch.input_ids[0].tolist()) == [
        "[CLS]", "m", "n", "o", "[SEP]", "[P1]", "[P2]", "[MASK]", "[MASK]", "[MASK]", "[SEP]",
    ]  # fmt: skip


def test_layout_of_a_padded_batch() -> None:
    batch = collate([example([7, 8, 9], [0, 3, 10], row=5), example([11], [2], row=2)])
    assert batch.input_ids.tolist() == [[CLS, 7, 8, 9, *TAIL], [CLS, 11, *TAIL, PAD, PAD]]
    assert batch.attention_mask.tolist() == [[1] * 12, [1] * 10 + [0, 0]]
    assert batch.positions.tolist() == [[8, 9, 10], [6, 7, 8]]
    assert batch.rows.tolist() == [5, 2]
    assert batch.targets.nonzero().tolist() == [[0, 0], [0, 3], [0, 10], [1, 2]]
    assert batch.num_text_tokens == 4


def test_text_is_cut_and_the_tail_never_is() -> None:
    batch = collate([example(range(10, 50))])
    assert TEMPLATE.text_budget == 24 - (3 + 3 + 3)
    assert batch.input_ids.tolist() == [[CLS, *range(10, 25), *TAIL]]
    assert batch.num_text_tokens == 15


def test_without_prompt_tokens_the_masks_follow_the_separator() -> None:
    template = replace(TEMPLATE, prompt_ids=(), first_label_id=FIRST_PROMPT)
    batch = collate([example([7, 8], [1, 4])], template, p_label=0.0)
    assert batch.input_ids.tolist() == [[CLS, 7, 8, SEP, FIRST_PROMPT + 1, FIRST_PROMPT + 4, MASK, SEP]]
    assert batch.positions[0, :3].tolist() == [4, 5, 6]


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    multiple=st.sampled_from([1, 2, 8, 16, 64]),
    max_length=st.integers(10, 40),
)
def test_padding_reaches_the_multiple_but_never_exceeds_max_length(
    lengths: list[int], multiple: int, max_length: int
) -> None:
    template = replace(TEMPLATE, max_length=max_length)
    batch = collate([example([7] * length) for length in lengths], template, pad_to_multiple_of=multiple)
    longest = int(batch.attention_mask.sum(1).max())
    width = batch.input_ids.shape[1]
    assert longest <= width <= max_length
    assert width % multiple == 0 or width == max_length
    assert width - longest < multiple
    assert torch.equal(batch.attention_mask == 0, batch.input_ids == PAD)


@pytest.mark.parametrize("key", ["mlm_probability", "p_label"])
@pytest.mark.parametrize("value", [-0.1, 1.5, None])
def test_bad_probabilities_are_refused(key: str, value: Any) -> None:
    message = f"model.{key}={value!r}: expected a number in [0, 1]"
    with pytest.raises(ValueError, match=re.escape(message)):
        collate([example([7])], **{key: value})


# ---- masked text ----


def documents(*, epoch: int = 0, first_row: int = 0, num: int = 8) -> list[Example]:
    return [example(range(10, 22), [row % 3, 3 + row % 7], row=first_row + row, epoch=epoch) for row in range(num)]


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


# ---- corner cases through the model ----


def loss_of_one_token(model: PTMT) -> dict[str, torch.Tensor]:
    terms = model.loss_terms(model.collator(training=True)([example([7], [0, 3])]))
    terms["loss"].backward()
    return terms


def test_text_of_one_token_with_nothing_masked_has_a_finite_loss(toy_ptmt: PTMT) -> None:
    toy_ptmt.mlm_probability = 0.0
    terms = loss_of_one_token(toy_ptmt)
    assert terms["mlm"].item() == 0
    assert all(term.isfinite() for term in terms.values())
    assert all(p.grad.isfinite().all() for p in toy_ptmt.parameters() if p.grad is not None)


def test_model_without_prompt_tokens_trains(toy_taxonomy: Taxonomy, tiny: tuple[Backbone, BertTokenizer, int]) -> None:
    backbone, tokenizer, max_length = tiny
    size = len(tokenizer)
    model = PTMT(
        taxonomy=toy_taxonomy,
        backbone=backbone,
        tokenizer=tokenizer,
        max_length=max_length,
        **ptmt_settings(num_prompt_tokens=0, p_label=0.5, mlm_probability=1.0),
    )
    assert model.template.first_label_id == size
    assert all(term.isfinite() for term in loss_of_one_token(model).values())


def test_model_that_leaves_no_room_for_text_is_refused(toy_taxonomy: Taxonomy) -> None:
    backbone, tokenizer, max_length = tiny_source(max_length=8).load(["m n o"])
    with pytest.raises(ValueError, match=r"backbone\.max_length=8: too small for the template"):
        PTMT(
            taxonomy=toy_taxonomy,
            backbone=backbone,
            tokenizer=tokenizer,
            max_length=max_length,
            **ptmt_settings(),
        )
