"""Backbones from scratch, and the vocabulary that they take from the texts."""

from __future__ import annotations

import random
from typing import Any

import pytest
from conftest import tiny_source
from padded_texts import TEXTS
from transformers import BertConfig, BertForMaskedLM

from ptmt_lightning.backbones import word_tokenizer


def test_from_scratch_is_a_bert_of_the_asked_size() -> None:
    backbone, tokenizer, max_length = tiny_source(num_layers=3, max_length=48).load(TEXTS)
    config: Any = backbone.model.config
    assert isinstance(backbone.model, BertForMaskedLM)
    assert isinstance(config, BertConfig)
    assert (config.num_hidden_layers, config.hidden_size, max_length) == (3, 32, 48)
    assert config.vocab_size == len(backbone.token_embeddings) == len(tokenizer)
    assert config.pad_token_id == tokenizer.pad_token_id
    assert backbone.model.training


def test_vocabulary_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"backbone\.vocabulary_size=0: expected an integer >= 1"):
        tiny_source(vocabulary_size=0).load(TEXTS)


def test_vocabulary_does_not_depend_on_the_order_of_texts() -> None:
    texts = ["beta alpha", "delta gamma", "alpha epsilon zeta", "eta theta beta"]
    vocabularies = []
    for seed in range(5):
        random.Random(seed).shuffle(texts)
        vocabularies.append(word_tokenizer(texts, 4).get_vocab())
    assert all(vocabulary == vocabularies[0] for vocabulary in vocabularies)
    # alpha and beta occur twice; of the rest, the first two by spelling
    assert {word for word in vocabularies[0] if len(word.strip("#")) > 1 and "[" not in word} == {
        "alpha", "beta", "delta", "epsilon",
    }  # fmt: skip


def test_frequent_words_are_one_token_and_case_does_not_matter() -> None:
    tokenizer = word_tokenizer(["Court court ruling"], 2)
    assert tokenizer.tokenize("COURT ruling Court") == ["court", "ruling", "court"]


def test_unseen_words_are_spelt_and_unknown_characters_are_unk() -> None:
    tokenizer = word_tokenizer(["abc abc cab"], 1)
    assert tokenizer.tokenize("bca cab abc") == ["b", "##c", "##a", "c", "##a", "##b", "abc"]
    assert tokenizer.tokenize("abc xyz") == ["abc", "[UNK]"]
    assert tokenizer.decode(tokenizer("abc bca")["input_ids"]) == "[CLS] abc bca [SEP]"


def test_special_tokens_come_first() -> None:
    tokenizer = word_tokenizer(["a b"], 5)
    assert tokenizer.convert_tokens_to_ids(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]) == [0, 1, 2, 3, 4]
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
