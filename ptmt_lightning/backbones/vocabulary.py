"""A tokenizer of words that is made from texts, for backbones without one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import BertTokenizer

_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def word_tokenizer(texts: Iterable[str], size: int) -> BertTokenizer:
    """Return a lower-casing WordPiece tokenizer that knows the most frequent words and spells others in characters.

    Equally frequent words are ordered by spelling, so that every process makes the same tokenizer.

    Args:
        texts: the texts whose words are counted.
        size: number of words.
    """
    split = pre_tokenizers.BertPreTokenizer()
    normalize = normalizers.BertNormalizer(lowercase=True)
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in split.pre_tokenize_str(normalize.normalize_str(text)))
    frequent = sorted(words, key=lambda word: (-words[word], word))[:size]
    characters = sorted({character for word in words for character in word})
    pieces = [*_SPECIAL_TOKENS, *characters, *(f"##{character}" for character in characters), *frequent]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer, backend.decoder = normalize, split, decoders.WordPiece()
    return BertTokenizer(vocab=vocabulary, tokenizer_object=backend)
