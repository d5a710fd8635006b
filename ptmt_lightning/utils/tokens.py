"""Conversion of texts to token ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LONG = 100_000  # characters of a text that are read at least
_CHARACTERS_A_TOKEN = 500  # far more than a token stands for
_GROWTH = 4  # a text of fewer tokens than wanted, as after long runs of spaces, is read so many times further
_LONGEST = 2**22  # characters of a text that are read at most, unless max_tokens asks for more
_CHARACTERS = 1_000_000  # tokenised at a time, because the tokenizer takes some 80 bytes of memory for each


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the number of embedding rows that a tokenizer needs: its largest id plus one, as ids may have gaps."""
    return max(tokenizer.get_vocab().values()) + 1


def text_token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Return the token ids of each text, at most ``max_tokens``, without special tokens.

    A text that spells a special token, such as ``[MASK]``, does not become one. Of a long text only the beginning is
    tokenised, 500 characters for each token that is wanted and at least 100,000; if that has too few tokens, up to 4
    million characters. The tokens are those of the whole text.
    """
    # A tokenizer takes a text as a whole and cuts only then: texts are cut before, where no wanted token is near.
    size = max(_LONG, max_tokens * _CHARACTERS_A_TOKEN)
    token_ids = _token_ids(tokenizer, [text[:size] for text in texts], max_tokens + 1)
    for row, text in enumerate(texts):
        read = size
        while len(token_ids[row]) <= max_tokens and read < min(len(text), _LONGEST):
            read *= _GROWTH
            [token_ids[row]] = _token_ids(tokenizer, [text[:read]], max_tokens + 1)
    return [ids[:max_tokens] for ids in token_ids]


def token_offsets(tokenizer: PreTrainedTokenizerBase, text: str, num_tokens: int) -> list[tuple[int, int]]:
    """Return where the first tokens of a text begin and end in it, in characters; those of :func:`text_token_ids`."""
    encoded = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, truncation=True, max_length=max(1, num_tokens),
        return_offsets_mapping=True,
    )  # fmt: skip
    offsets: list[tuple[int, int]] = encoded["offset_mapping"][:num_tokens]
    return offsets


def _token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    token_ids: list[list[int]] = []
    for group in _groups(texts):
        encoded = tokenizer(
            group,
            add_special_tokens=False,
            split_special_tokens=True,
            truncation=True,
            max_length=max_tokens,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        token_ids += encoded["input_ids"]
    return token_ids


def is_unicode(text: str) -> bool:
    """Return whether a text holds no half of a surrogate pair, as undecodable input leaves them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for text in texts:
        if group and size + len(text) > _CHARACTERS:
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text)
    if group:
        yield group
