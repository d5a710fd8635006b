"""The computation of label scores from a batch, without anything that only training needs.

Shape legend: ``B`` documents, ``L`` sequence length, ``K`` positions of interest, ``M`` prompt tokens, ``V`` nodes,
``H`` hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptmt_lightning.models.ptmt.collator import PTMTBatch
from ptmt_lightning.models.ptmt.template import Template
from ptmt_lightning.taxonomy import Taxonomy

if TYPE_CHECKING:
    from ptmt_lightning.backbones import Backbone

_PROMPT_WIDTH = 64  # size of the hidden layer between a text and its prompts


def slot_states(backbone: Backbone, batch: PTMTBatch, document_prompts: DocumentPrompts | None) -> Tensor:
    """Return the states at a batch's positions of interest, after the head's transform: ``[B, K, H]``, slots first.

    Args:
        backbone: language model that reads the batch.
        batch: the filled templates.
        document_prompts: changes the embeddings of prompt tokens by the text; None for prompts that texts share.
    """
    token_states = None
    if document_prompts is not None:
        token_states = document_prompts(backbone.embed_tokens(batch.input_ids), batch.text_lengths)
    states_BKH: Tensor = backbone(
        batch.input_ids, batch.attention_mask, batch.positions, token_states, batch.decoder_ids
    )
    return states_BKH


def label_logits(backbone: Backbone, taxonomy: Taxonomy, states_BKH: Tensor) -> Tensor:
    """Return the scores of all nodes ``[B, V]``: slot i scores the label tokens of level i (section A.4).

    Args:
        backbone: holds embeddings and biases of the label tokens.
        taxonomy: hierarchy of the labels.
        states_BKH: states of which the first are those of the slots.
    """
    rows_NH, size = backbone.new_output_rows, len(taxonomy)
    # Split at once: the gradient of each slice would be a matrix of all rows.
    _, *embeddings = rows_NH.split([len(rows_NH) - size, *taxonomy.level_sizes])
    return level_logits(states_BKH, embeddings, backbone.new_bias[-size:])


def level_logits(states_BKH: Tensor, embeddings: Sequence[Tensor], bias_V: Tensor) -> Tensor:
    """Return the scores of all nodes ``[B, V]``: the i-th state scores the labels of level i.

    Args:
        states_BKH: states of which the first are those of the levels.
        embeddings: output embeddings of the labels of each level, ``[n, H]`` each.
        bias_V: biases of all labels.
    """
    levels = [states_BKH[:, i] @ level_nH.T for i, level_nH in enumerate(embeddings)]
    return torch.cat(levels, dim=-1) + bias_V


class PTMTNetwork(nn.Module):
    """The layers of a trained PTMT model; computes the scores (logits) of a batch.

    Args:
        backbone: the trained language model, with its added tokens.
        taxonomy: hierarchy of the labels.
        document_prompts: the trained network for prompts of each document; None for shared prompts.
    """

    def __init__(self, backbone: Backbone, taxonomy: Taxonomy, document_prompts: DocumentPrompts | None) -> None:
        super().__init__()
        self.backbone, self.taxonomy, self.document_prompts = backbone, taxonomy, document_prompts

    def forward(self, batch: PTMTBatch) -> Tensor:
        """Return the scores (logits) of all nodes, ``[B, V]``."""
        return label_logits(self.backbone, self.taxonomy, slot_states(self.backbone, batch, self.document_prompts))


class DocumentPrompts(nn.Module):
    """Makes prompts depend on the text: adds to them what a small network computes from the text's mean embedding.

    The network starts at zero, so that training starts from prompts that all texts share.

    Args:
        hidden_size: size H of embeddings.
        template: says where text and prompts are.
    """

    def __init__(self, hidden_size: int, template: Template) -> None:
        super().__init__()
        num_prompt_tokens = len(template.prompt_ids)
        self.template = template
        self.norm = nn.LayerNorm(hidden_size)
        self.inner = nn.Linear(hidden_size, _PROMPT_WIDTH)
        self.outer = nn.Linear(_PROMPT_WIDTH, num_prompt_tokens * hidden_size)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, embeddings_BLH: Tensor, text_lengths_B: Tensor) -> Tensor:
        """Return token embeddings ``[B, L, H]`` with those of the prompts changed.

        Args:
            embeddings_BLH: token embeddings.
            text_lengths_B: int64 ``[B]``, number of text tokens of each document.
        """
        first, num_prompts = len(self.template.ids_before_text), len(self.template.prompt_ids)
        index_L = torch.arange(embeddings_BLH.shape[1], device=text_lengths_B.device)
        text_BL = (index_L >= first) & (index_L < first + text_lengths_B[:, None])
        prompts_BM = self.template.prompt_places(text_lengths_B)[:, None] + index_L[:num_prompts]
        total_BH = (embeddings_BLH * text_BL[..., None]).sum(dim=1)
        mean_BH = total_BH / text_lengths_B[:, None].clamp_min(1)
        offsets = self.outer(F.gelu(self.inner(self.norm(mean_BH))))
        offsets_BMH = offsets.unflatten(-1, (num_prompts, -1)).to(embeddings_BLH.dtype)
        return embeddings_BLH.scatter_add(1, prompts_BM[..., None].expand_as(offsets_BMH), offsets_BMH)
