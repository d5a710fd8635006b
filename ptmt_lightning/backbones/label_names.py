"""Embeddings of labels from the word pieces of their names.

Shape legend: ``V`` names, ``E`` size of token embeddings.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ptmt_lightning.backbones.backbone import Backbone


def name_embeddings(
    backbone: Backbone,
    tokenizer: PreTrainedTokenizerBase,
    names: Sequence[str],
    *,
    reduction: Literal["mean", "sum"],
    of_output: bool = False,
) -> Tensor:
    """Return an embedding for each name, ``[V, E]``: the mean or sum of the embeddings of its word pieces.

    The embedding of a name without word pieces is drawn at random.

    Args:
        backbone: holds the embeddings.
        tokenizer: the backbone's tokenizer; what is no letter or digit in a name is read as a space.
        names: one name a node.
        reduction: ``mean`` or ``sum``.
        of_output: whether to take output embeddings in place of input embeddings.
    """
    old_TE = (backbone.output_matrix if of_output else backbone.token_embeddings).detach()
    rows_VE = backbone.random_rows(len(names))
    # Names start with a space, as some tokenizers encode words within a text differently from its first word.
    words = [_as_words(f" {name}") for name in names]
    for row, ids in enumerate(tokenizer(words, add_special_tokens=False)["input_ids"]):
        if ids:
            rows_VE[row] = old_TE[ids].mean(dim=0) if reduction == "mean" else old_TE[ids].sum(dim=0)
    return rows_VE


def _as_words(name: str) -> str:
    """Return a name with a space for each run of punctuation, symbols and spaces; marks of letters stay."""
    kept = (" " if unicodedata.category(character)[0] in "PSZC" else character for character in name)
    return re.sub(" +", " ", "".join(kept))
