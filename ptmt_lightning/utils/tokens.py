"""From texts to token ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

_CHARACTERS = 1_000_000  # tokenised at a time: the tokenizer takes some 80 bytes for each


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """Rows that its token ids need: the next token added gets this id. Ids may have holes."""
    return max(tokenizer.get_vocab().values()) + 1


def text_token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Tokens of each text, cut, without special tokens; a text that spells ``[MASK]`` does not become one."""
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
    """Whether it has no half of a pair, as text has that was not UTF-8."""
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
