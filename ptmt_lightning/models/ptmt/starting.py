"""The parameters with which a training starts: rows of the template's tokens, and biases of labels.

Shape legend: ``V`` nodes, ``N`` new tokens of the backbone, ``E`` size of token embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ptmt_lightning.backbones import name_embeddings, name_states
from ptmt_lightning.decisions import Decision
from ptmt_lightning.models.ptmt.template import Template
from ptmt_lightning.models.ptmt.warm_start import Rows
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils.tokens import vocabulary_size

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ptmt_lightning.backbones import Backbone

LabelInit = Literal["label_name", "label_state", "random"]
SlotInit = Literal["mask", "cls"]


def first_rows(
    backbone: Backbone,
    tokenizer: PreTrainedTokenizerBase,
    taxonomy: Taxonomy,
    template: Template,
    label_init: LabelInit,
    bias_V: Tensor,
) -> Rows:
    """Return the embeddings and biases of the template's tokens, in the order of their ids, label tokens last.

    Embeddings that do not come from the names of labels, or from ``[CLS]`` for slots, are drawn at random.

    Args:
        backbone: the language model, without the new tokens.
        tokenizer: the backbone's tokenizer, with the new tokens.
        taxonomy: hierarchy of the labels.
        template: says which of the new tokens is the slots'.
        label_init: see :class:`~ptmt_lightning.models.ptmt.module.PTMT`.
        bias_V: biases of labels.
    """
    num_labels = len(taxonomy)
    num_rows = vocabulary_size(tokenizer) - len(backbone.token_embeddings)
    rows = backbone.random_rows(num_rows)
    output_rows = None if backbone.is_tied else backbone.random_rows(num_rows)
    scoring = rows if output_rows is None else output_rows
    for matrix in (rows,) if output_rows is None else (rows, output_rows):
        if label_init == "label_state" and matrix is scoring:
            states_VE = name_states(backbone, tokenizer, taxonomy.words(), max_length=template.max_length)
            matrix[-num_labels:] = _directions(states_VE, taxonomy)
        elif label_init != "random":
            matrix[-num_labels:] = name_embeddings(
                backbone, tokenizer, taxonomy.words(), reduction="mean", of_output=matrix is output_rows
            )
    if template.slot_id is not None:
        rows[template.slot_id - template.num_text_tokens] = backbone.token_embeddings[template.prefix_ids[0]].detach()
    return Rows(rows, output_rows, F.pad(bias_V, (num_rows - num_labels, 0)))


def _directions(states_VE: Tensor, taxonomy: Taxonomy) -> Tensor:
    """Return in which direction each node's state differs from the mean of its level: vectors of length 1."""
    levels = []
    for nodes in taxonomy.level_slices:
        level = states_VE[nodes]
        levels.append(level - level.mean(dim=0) if len(level) > 1 else level)
    return F.normalize(torch.cat(levels), dim=-1)


def frequency_bias(decision: Decision, counts: Sequence[int], num_documents: int, level_sizes: Sequence[int]) -> Tensor:
    """Return biases, float32 ``[V]``, by which scores start at how often each label occurs.

    Half a document is added to each label, and one to all, as no score gives a probability of 0 or 1.

    Args:
        decision: turns scores into probabilities.
        counts: number of training documents of each node.
        num_documents: number of training documents.
        level_sizes: number of nodes on each level.

    Raises:
        ValueError: a loss that has such a prior itself.
    """
    half = 0.5 / (num_documents + 1)
    shares_V = torch.tensor(counts, dtype=torch.float32) / (num_documents + 1) + half
    return decision.logits_of(shares_V, level_sizes, least=half)
