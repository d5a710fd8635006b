"""Long texts are cut by characters before they are tokenised, and their tokens are those of the whole text."""

from __future__ import annotations

import pytest
from conftest import tiny_source
from transformers import PreTrainedTokenizerBase

from ptmt_lightning.utils import tokens as module
from ptmt_lightning.utils.tokens import text_token_ids


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    _, tokenizer, _ = tiny_source().load(["m n o p q é"])
    return tokenizer


TEXTS = {
    "words": "m n o " * 200,
    "one word": "mno" * 400,
    "spaces first": " " * 3000 + "m n o p",
    "spaces between": "m" + " " * 3000 + "n" + "\n" * 3000 + "o p q",
    "combining marks": "m" + "\u0301" * 2000 + " n o p",
    "a word over the cut": "m " * 49 + "nopq" * 10 + " m n o",
    "short": "m n",
    "empty": "",
}


@pytest.mark.parametrize("name", list(TEXTS))
@pytest.mark.parametrize("max_tokens", [1, 3, 16, 60])
def test_the_tokens_are_those_of_the_whole_text(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch, name: str, max_tokens: int
) -> None:
    whole = tokenizer(TEXTS[name], add_special_tokens=False)["input_ids"][:max_tokens]
    monkeypatch.setattr(module, "_LONG", 300)  # more than the longest word that has tokens
    monkeypatch.setattr(module, "_CHARACTERS_A_TOKEN", 4)
    assert text_token_ids(tokenizer, ["m", TEXTS[name], "n"], max_tokens)[1] == whole


def test_no_more_than_the_bound_is_ever_read(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONG", 100)
    monkeypatch.setattr(module, "_CHARACTERS_A_TOKEN", 4)
    monkeypatch.setattr(module, "_LONGEST", 1000)
    assert text_token_ids(tokenizer, [" " * 5000 + "m"], 3) == [[]]
