"""Embeddings of labels from their names: of the names' word pieces, or of what a backbone makes of them.

Shape legend: ``V`` names, ``E`` size of token embeddings, ``B`` names a batch, ``L`` their length in tokens.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from ptmt_lightning.backbones.backbone import Backbone

# Symbols that Unicode counts among punctuation, and a separator that it counts among symbols.
_SYMBOLS, _SEPARATORS = "#%*@", "|"
_BATCH = 64  # names that a backbone reads at once


def name_embeddings(
    backbone: Backbone,
    tokenizer: PreTrainedTokenizerBase,
    names: Sequence[str],
    *,
    reduction: Literal["mean", "sum"],
    of_output: bool = False,
) -> Tensor:
    """Return an embedding for each name, ``[V, E]``: the mean or sum of the embeddings of its word pieces.

    The embedding of a name without known word pieces is drawn at random. Names of different words never share one:
    where the tokenizer makes the same pieces of them, a random part tells them apart.

    Args:
        backbone: holds the embeddings.
        tokenizer: the backbone's tokenizer; separators and punctuation in a name are read as a space.
        names: one name a node.
        reduction: ``mean`` or ``sum``.
        of_output: whether to take output embeddings in place of input embeddings.
    """
    old_TE = (backbone.output_matrix if of_output else backbone.token_embeddings).detach()
    rows_VE = backbone.random_rows(len(names))
    words = [_as_words(name) for name in names]
    pieces = _word_pieces(tokenizer, words)
    shared = _shared(words, [_proportions(ids) for ids in pieces] if reduction == "mean" else pieces)
    lengths_V = torch.tensor([len(ids) for ids in pieces])
    token_ids = torch.tensor([token for ids in pieces for token in ids], dtype=torch.long)
    reduced_VE = F.embedding_bag(token_ids, old_TE, lengths_V.cumsum(0) - lengths_V, mode=reduction)
    drawn_VE, rows_VE = rows_VE, torch.where(lengths_V[:, None] > 0, reduced_VE, rows_VE)
    first = {name: row for row, name in reversed(list(enumerate(words)))}
    for row in shared:
        if pieces[row]:
            rows_VE[row] += drawn_VE[first[words[row]]]
    return rows_VE


@torch.no_grad()
def name_states(
    backbone: Backbone, tokenizer: PreTrainedTokenizerBase, names: Sequence[str], *, max_length: int
) -> Tensor:
    """Return the mean state of each name's tokens, after the head's transform: ``[V, E]``.

    Each name is read as a text of its own, without dropout. Names lie where texts about them do as far as the backbone
    is trained to put them there, as sentence encoders are. Names of different words never share a state, as in
    :func:`name_embeddings`.

    Args:
        backbone: reads the names.
        tokenizer: the backbone's tokenizer.
        names: one name a node.
        max_length: longest sequence, in tokens.
    """
    token_ids = tokenizer(list(names), truncation=True, max_length=max_length)["input_ids"]
    order = sorted(range(len(names)), key=lambda row: len(token_ids[row]))
    states_VE = torch.zeros(len(names), backbone.token_embeddings.shape[1])
    start_id = getattr(backbone.model.config, "decoder_start_token_id", None) or tokenizer.pad_token_id
    was_training = backbone.training
    backbone.eval()
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        # A tokenizer that adds nothing gives an empty name no token.
        ids_BL = pad_sequence([torch.tensor(token_ids[row] or [0]) for row in rows], batch_first=True)
        lengths_B = torch.tensor([max(len(token_ids[row]), 1) for row in rows])
        mask_BL = (torch.arange(ids_BL.shape[1]) < lengths_B[:, None]).long()
        positions_BL = torch.arange(ids_BL.shape[1]).expand_as(ids_BL)
        decoder_ids_BL = None
        if backbone.family.form == "encoder-decoder":  # whose decoder writes what it has read, one token behind
            decoder_ids_BL = F.pad(ids_BL[:, :-1], (1, 0), value=start_id)
        states_BLE = backbone(ids_BL, mask_BL, positions_BL, None, decoder_ids_BL)
        states_VE[rows] = (states_BLE * mask_BL[..., None]).sum(dim=1) / lengths_B[:, None]
    backbone.train(was_training)
    shared = list(_shared(names, token_ids))
    states_VE[shared] += backbone.random_rows(len(names))[shared]
    return states_VE


def _shared(words: Sequence[str], pieces: Sequence[Sequence[int]]) -> set[int]:
    """Return the rows whose pieces are, in some order, those of other words, too."""
    keys = [tuple(sorted(ids)) for ids in pieces]
    counts = Counter(dict(zip(words, keys, strict=True)).values())
    return {row for row, key in enumerate(keys) if counts[key] > 1}


def _proportions(ids: Sequence[int]) -> list[int]:
    """Return pieces without common repeats, which don't change a mean: those of ``other`` for ``other | other``."""
    counts = Counter(ids)
    divisor = math.gcd(*counts.values())
    return [token for token, count in counts.items() for _ in range(count // divisor)]


def _as_words(name: str) -> str:
    """Return a name with a space for each run of separators and punctuation; marks of letters and symbols stay.

    The space before the first word is for tokenizers that encode words within a text differently from its first word.
    """
    kept = (" " if _is_separator(character) else character for character in name)
    return re.sub(" +", " ", " " + "".join(kept)).rstrip()


def _is_separator(character: str) -> bool:
    if character in _SYMBOLS:
        return False
    category = unicodedata.category(character)
    return character in _SEPARATORS or category[0] in "PZ" or category == "Cc"


def _word_pieces(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> list[list[int]]:
    """Return the ids of the word pieces of each name, without unknown ones, which say nothing.

    Names of different words that a tokenizer gives the same pieces because it strips accents, and with them the vowel
    signs of many scripts, are tokenised without that.
    """
    pieces: list[list[int]] = tokenizer(list(words), add_special_tokens=False)["input_ids"]
    pieces = [[token for token in ids if token != tokenizer.unk_token_id] for ids in pieces]
    shared = _shared(words, pieces)
    keeping = _keeping_accents(tokenizer) if shared else None
    if keeping is not None:
        for row in shared:
            ids = keeping.encode(words[row], add_special_tokens=False).ids
            pieces[row] = [token for token in ids if token != tokenizer.unk_token_id] or pieces[row]
    return pieces


def _keeping_accents(tokenizer: PreTrainedTokenizerBase) -> Tokenizer | None:
    """Return a copy of a tokenizer that strips no accents; None if this one strips none."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    normalizer = _without_stripping(content["normalizer"])
    if normalizer == content["normalizer"]:
        return None
    found: Tokenizer = Tokenizer.from_str(json.dumps(content | {"normalizer": normalizer}))
    return found


def _without_stripping(normalizer: Any) -> Any:
    match normalizer:
        case {"type": "BertNormalizer"}:
            return normalizer | {"strip_accents": False}
        case {"type": "Sequence", "normalizers": parts}:
            kept = [_without_stripping(part) for part in parts if part["type"] != "StripAccents"]
            return normalizer | {"normalizers": kept}
        case {"type": "StripAccents"}:
            return None
    return normalizer
