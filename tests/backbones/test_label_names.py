"""What is tokenised of a label's name, and that no two labels of different words start alike."""

from __future__ import annotations

import itertools

import pytest
import torch
from conftest import tiny_source
from tokenizers import normalizers

from ptmt_lightning.backbones import name_embeddings
from ptmt_lightning.backbones.label_names import _as_words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a/b_c-d & e", " a b c d e"),
        ("  Arts, (Fine) ", " Arts Fine"),
        ("C++", " C++"),
        ("C#", " C#"),
        (".NET", " NET"),
        ("A|B", " A B"),
        ("< 5 €", " < 5 €"),
        ("हिन्दी", " हिन्दी"),
        ("ก\u0e34ก\u0e38", " ก\u0e34ก\u0e38"),
        ("\u0645\u06cc\u200c\u062e", " \u0645\u06cc\u200c\u062e"),
    ],
)
def test_only_separators_and_punctuation_go(name: str, words: str) -> None:
    assert _as_words(name) == words


NAMES = [
    ["C", "C++", "C#", "C*"],
    ["कु", "कू", "कि", "की", "क"],
    ["ก\u0e34", "ก\u0e38", "ก\u0e39"],
    ["ب\u064e", "ب\u0650", "ب"],
    ["Cafe", "Café"],
    ["a b", "b a", "ab"],
    ["👍", "👎"],
    ["日", "本"],
    ["Apple", "apple"],
    ["Other", "Other | Other", "Other | Other | Other"],
    ["Other | m", "m | Other"],
]


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("known", [True, False], ids=["known characters", "unknown characters"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_different_words_start_from_different_embeddings(names: list[str], known: bool, reduction: str) -> None:
    """Through a normaliser that strips accents, and where the vocabulary lacks the characters."""
    backbone, tokenizer, _ = tiny_source(vocabulary_size=200).load(["a b c m n", *(names if known else [])])
    rows = name_embeddings(backbone, tokenizer, names, reduction=reduction)  # type: ignore[arg-type]
    for one, other in itertools.combinations(rows, 2):
        assert (one - other).norm() > 1e-3


def test_a_tokenizer_that_keeps_accents_where_names_need_them_gives_their_pieces() -> None:
    backbone, tokenizer, _ = tiny_source(vocabulary_size=200).load(["cafe"])
    tokenizer.add_tokens(["café"])
    backbone.model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    assert isinstance(tokenizer.backend_tokenizer.normalizer, normalizers.BertNormalizer)
    cafe, accented = name_embeddings(backbone, tokenizer, ["cafe", "café!"], reduction="mean")
    matrix = backbone.token_embeddings.detach()
    torch.testing.assert_close(accented, matrix[tokenizer.convert_tokens_to_ids("café")])
    torch.testing.assert_close(cafe, matrix[tokenizer.convert_tokens_to_ids("cafe")])
