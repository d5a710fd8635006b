"""The layers of HPT: prompts of levels that hear of labels by a graph, and a slot beside each that scores its level.

Shape legend: ``B`` documents, ``L`` sequence length of the text, ``W`` with prompts and slots (L + 2 D), ``D`` levels,
``V`` nodes, ``G`` nodes of the graph (V + D), ``E`` size of token embeddings.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptmt_lightning.models.networks.text import TextBatch, TextNetwork
from ptmt_lightning.models.ptmt.network import level_logits
from ptmt_lightning.taxonomy import Taxonomy

_DROPOUT = 0.1  # that of BERT, as published
_SLOPE = 0.2  # of the leaky ReLU in graph attention (Velickovic et al. 2018)


class Filled(NamedTuple):
    """What the encoder reads."""

    token_states: Tensor  # [B, W, E]
    attention_mask: Tensor  # int64 [B, W]
    slots: Tensor  # int64 [B, D], their positions


class HPTNetwork(TextNetwork):
    """Reads ``[CLS] text P1 [PRED] ... Pd [PRED] [SEP]``: each slot scores the label tokens of its level."""

    sizes: ClassVar[dict[str, int]] = {"num_graph_layers": 100}
    neighbours: Tensor

    @staticmethod
    def num_reserved(taxonomy: Taxonomy) -> int:
        """Return the number of prompts and slots, one of each a level."""
        return 2 * taxonomy.num_levels

    def add_layers(self, *, num_graph_layers: int) -> None:
        """Add embeddings of labels, prompts and the slot, biases of labels, and the layers of the graph.

        Args:
            num_graph_layers: number of layers of graph attention.
        """
        self.num_graph_layers = num_graph_layers
        num_nodes, size = len(self.taxonomy), self.backbone.token_embeddings.shape[1]
        self.label_rows = nn.Parameter(torch.empty(num_nodes, size))
        self.prompt_rows = nn.Parameter(torch.empty(self.taxonomy.num_levels, size))
        self.slot_row = nn.Parameter(torch.empty(size))
        self.label_bias = nn.Parameter(torch.empty(num_nodes))
        self.register_buffer("neighbours", neighbours(self.taxonomy), persistent=False)
        self.graph = nn.ModuleList(GraphLayer(size) for _ in range(num_graph_layers))

    def forward(self, batch: TextBatch) -> Tensor:
        """Return the scores (logits) of all nodes, ``[B, V]``."""
        filled = self.fill(batch.input_ids, batch.attention_mask)
        return self.slot_logits(
            self.backbone(batch.input_ids, filled.attention_mask, filled.slots, filled.token_states)
        )

    def slot_logits(self, states_BDE: Tensor) -> Tensor:
        """Return the scores of all nodes, ``[B, V]``, from the transformed states of the slots."""
        return level_logits(states_BDE, self.label_rows.split(self.taxonomy.level_sizes), self.label_bias)

    def prompts(self) -> Tensor:
        """Return the embeddings of prompts ``[D, E]`` after the layers of the graph."""
        rows_GE = torch.cat([self.label_rows, self.prompt_rows])
        for layer in self.graph:
            rows_GE = layer(rows_GE, self.neighbours)
        return rows_GE[len(self.taxonomy) :]

    def fill(self, input_ids: Tensor, attention_mask: Tensor) -> Filled:
        """Put prompts and slots between a text and the ``[SEP]`` at its end.

        Args:
            input_ids: int64 ``[B, L]``, ``[CLS] text [SEP]`` and padding.
            attention_mask: int64 ``[B, L]``.
        """
        prompts_DE = self.prompts()
        added_E2 = torch.stack([prompts_DE, self.slot_row.expand_as(prompts_DE)], dim=1).flatten(0, 1)
        text_BLE = self.backbone.embed_tokens(input_ids)
        num_documents, length, size = text_BLE.shape
        num_added = self.num_reserved(self.taxonomy)
        lengths_B1 = attention_mask.sum(dim=1, keepdim=True)
        first_B1 = lengths_B1 - 1  # where [SEP] was
        places_W = torch.arange(length + num_added, device=input_ids.device)
        after_BW = torch.where(places_W < first_B1 + num_added, length + places_W - first_B1, places_W - num_added)
        source_BW = torch.where(places_W < first_B1, places_W, after_BW)
        known = torch.cat([text_BLE, added_E2.to(text_BLE.dtype).expand(num_documents, -1, -1)], dim=1)
        token_states = known.gather(1, source_BW[..., None].expand(-1, -1, size))
        slots_D = torch.arange(1, num_added, 2, device=input_ids.device)
        return Filled(token_states, (places_W < lengths_B1 + num_added).long(), first_B1 + slots_D)


class GraphLayer(nn.Module):
    """One layer of single-head graph attention (Velickovic et al. 2018), added to what it reads, and normalised.

    Args:
        size: size E of embeddings.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.project, self.bias = nn.Linear(size, size, bias=False), nn.Parameter(torch.zeros(size))
        self.of_node, self.of_neighbour = (nn.Linear(size, 1, bias=False) for _ in range(2))
        for linear in (self.project, self.of_node, self.of_neighbour):
            nn.init.xavier_uniform_(linear.weight)
        self.dropout, self.norm = nn.Dropout(_DROPOUT), nn.LayerNorm(size)

    def forward(self, rows_GE: Tensor, neighbours_GG: Tensor) -> Tensor:
        """Return the embeddings of the graph's nodes, each with what it takes from its neighbours, ``[G, E]``."""
        projected = self.project(rows_GE)
        scores_GG = F.leaky_relu(self.of_node(projected) + self.of_neighbour(projected).T, _SLOPE)
        attention_GG = scores_GG.masked_fill(~neighbours_GG, -torch.inf).softmax(dim=-1)
        changed: Tensor = self.norm(rows_GE + self.dropout(attention_GG @ projected + self.bias))
        return changed


def neighbours(taxonomy: Taxonomy) -> Tensor:
    """Return which nodes of the graph are neighbours, bool ``[G, G]``: the labels, then a prompt for each level.

    A label has its parents, its children and the prompt of its level; each node is a neighbour of itself.
    """
    num_nodes = len(taxonomy)
    found = torch.eye(num_nodes + taxonomy.num_levels, dtype=torch.bool)
    edges = taxonomy.edge_index()
    labels = torch.arange(num_nodes)
    prompts = num_nodes - 1 + torch.tensor(taxonomy.levels)
    for one, other in (edges, (labels, prompts)):
        found[one, other] = found[other, one] = True
    return found
