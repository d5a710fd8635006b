"""What PTMT computes for a batch; nothing of training.

Shape legend: ``B`` documents, ``L`` sequence length, ``K`` positions of interest, ``M`` prompt tokens, ``V`` nodes,
``H`` hidden size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptmt_lightning.backbones import Backbone
from ptmt_lightning.models.ptmt.collator import PTMTBatch
from ptmt_lightning.models.ptmt.template import Template
from ptmt_lightning.taxonomy import Taxonomy

_PROMPT_WIDTH = 64  # of the hidden layer between a text and its prompts


def slot_states(backbone: Backbone, batch: PTMTBatch, document_prompts: DocumentPrompts | None) -> Tensor:
    """States ``[B, K, H]`` at the positions of interest, the slots first, after the head's transform."""
    token_states = None
    if document_prompts is not None:
        token_states = document_prompts(backbone.embed_tokens(batch.input_ids), batch.text_lengths)
    states_BKH: Tensor = backbone(
        batch.input_ids, batch.attention_mask, batch.positions, token_states, batch.decoder_ids
    )
    return states_BKH


def label_logits(backbone: Backbone, taxonomy: Taxonomy, states_BKH: Tensor) -> Tensor:
    """Scores ``[B, V]``: slot i against the label tokens of level i (section A.4)."""
    size = len(taxonomy)
    embeddings_VH, bias_V = backbone.new_output_rows[-size:], backbone.new_bias[-size:]
    levels = [states_BKH[:, i] @ embeddings_VH[nodes].T for i, nodes in enumerate(taxonomy.level_slices)]
    return torch.cat(levels, dim=-1) + bias_V


class DocumentPrompts(nn.Module):
    """Adds to each prompt token's embedding what a small network makes of the document's mean embedding.

    It starts at nothing added, that is at shared prompts.
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
        """Token embeddings ``[B, L, H]`` with the prompts' changed."""
        first, num_prompts = len(self.template.prefix_ids), len(self.template.prompt_ids)
        index_L = torch.arange(embeddings_BLH.shape[1], device=text_lengths_B.device)
        text_BL = (index_L >= first) & (index_L < first + text_lengths_B[:, None])
        prompts_BM = text_lengths_B[:, None] + self.template.prompt_offset + index_L[:num_prompts]
        total_BH = (embeddings_BLH * text_BL[..., None]).sum(dim=1)
        mean_BH = total_BH / text_lengths_B[:, None].clamp_min(1)
        offsets = self.outer(F.gelu(self.inner(self.norm(mean_BH))))
        offsets_BMH = offsets.unflatten(-1, (num_prompts, -1)).to(embeddings_BLH.dtype)
        return embeddings_BLH.scatter_add(1, prompts_BM[..., None].expand_as(offsets_BMH), offsets_BMH)
