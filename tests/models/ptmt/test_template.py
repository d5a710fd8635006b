"""The template's tokens."""

from __future__ import annotations

import re
from typing import Any

import pytest
from conftest import TOY_DOCUMENTS
from transformers import BertTokenizer

from ptmt_lightning.backbones import word_tokenizer
from ptmt_lightning.models.ptmt.template import Template, label_tokens, prompt_tokens
from ptmt_lightning.taxonomy import Taxonomy


def toy_tokenizer() -> BertTokenizer:
    return word_tokenizer((document["text"] for document in TOY_DOCUMENTS), 100)


def test_template_tokens_get_the_next_ids(toy_taxonomy: Taxonomy) -> None:
    tokenizer = toy_tokenizer()
    size = len(tokenizer)
    template = Template.add_to(tokenizer, toy_taxonomy, num_prompt_tokens=2, max_length=32)
    names = [*prompt_tokens(2), *label_tokens(toy_taxonomy)]
    assert tokenizer.convert_tokens_to_ids(names) == list(range(size, size + 2 + 11))
    sep_ids = (tokenizer.convert_tokens_to_ids("[SEP]"),)
    assert template == Template(
        form="encoder",
        prefix_ids=(tokenizer.convert_tokens_to_ids("[CLS]"),),
        separator_ids=sep_ids,
        end_ids=sep_ids,
        mask_id=tokenizer.convert_tokens_to_ids("[MASK]"),
        pad_id=tokenizer.convert_tokens_to_ids("[PAD]"),
        prompt_ids=(size, size + 1),
        first_label_id=size + 2,
        level_sizes=(3, 7, 1),
        num_text_tokens=size,
        max_length=32,
    )


def test_same_tokenizer_twice_is_refused(toy_taxonomy: Taxonomy) -> None:
    tokenizer = toy_tokenizer()
    Template.add_to(tokenizer, toy_taxonomy, num_prompt_tokens=3, max_length=32)
    with pytest.raises(ValueError, match=r"already has template tokens such as '\[P1\]'; set backbone\.name"):
        Template.add_to(tokenizer, toy_taxonomy, num_prompt_tokens=3, max_length=32)


def test_more_prompt_tokens_on_the_same_tokenizer_are_refused_too(toy_taxonomy: Taxonomy) -> None:
    tokenizer = toy_tokenizer()
    Template.add_to(tokenizer, toy_taxonomy, num_prompt_tokens=0, max_length=32)
    with pytest.raises(ValueError, match=r"already has template tokens such as '\[LABEL_A\]'"):
        Template.add_to(tokenizer, toy_taxonomy, num_prompt_tokens=1, max_length=32)


def test_max_length_without_room_for_text_is_refused(toy_taxonomy: Taxonomy) -> None:
    message = (
        "backbone.max_length=9: too small for the template, which takes 9 tokens (3 prompt tokens, 3 level masks, "
        "special tokens) and needs at least 1 for the text; set it to 10 or more"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        Template.add_to(toy_tokenizer(), toy_taxonomy, num_prompt_tokens=3, max_length=9)


def test_max_length_with_room_for_one_token_is_enough(toy_taxonomy: Taxonomy) -> None:
    assert Template.add_to(toy_tokenizer(), toy_taxonomy, num_prompt_tokens=3, max_length=10).text_budget == 1


@pytest.mark.parametrize("value", [-1, 2.0, "3", True])
def test_bad_numbers_of_prompt_tokens_are_refused(toy_taxonomy: Taxonomy, value: Any) -> None:
    message = f"model.num_prompt_tokens={value!r}: expected an integer >= 0"
    with pytest.raises(ValueError, match=re.escape(message)):
        Template.add_to(toy_tokenizer(), toy_taxonomy, num_prompt_tokens=value, max_length=32)
