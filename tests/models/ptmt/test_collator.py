"""The layout of batches: template, padding, and corner cases through the model."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import TOY_DOCUMENTS, ptmt_settings, tiny_source
from hypothesis import given
from hypothesis import strategies as st
from template_batches import CLS, FIRST_PROMPT, MASK, PAD, SEP, TAIL, TEMPLATE, collate, example
from transformers import BertTokenizer

from ptmt_lightning.backbones import Backbone, word_tokenizer
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.models.ptmt.template import Template
from ptmt_lightning.taxonomy import Taxonomy

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
