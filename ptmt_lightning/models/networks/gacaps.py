"""The layers of GACaps: a convolution over the text, graph attention over labels, capsules with dynamic routing.

Shape legend: ``B`` documents, ``L`` sequence length, ``V`` nodes, ``F`` features of a label, ``C`` size of a capsule,
``I`` capsules that vote, ``K`` channels of the convolution (V F).
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptmt_lightning.models.networks.text import TextBatch, TextNetwork

_MAX_ROUTING_STEPS = 20
_CONVERGED = 0.05  # routing stops when the log agreement changes by less
_DROPPED = 0.05  # share of label representations, the weakest, that do not vote
_TINY = 1e-8


class GACapsNetwork(TextNetwork):
    """Represents labels by a convolution over the text, relates them to each other, and routes them to capsules."""

    sizes: ClassVar[dict[str, int]] = {"num_features": 2**16, "capsule_size": 2**16}
    edges: Tensor

    def add_layers(self, *, num_features: int, capsule_size: int) -> None:
        """Add the layers over the backbone.

        Args:
            num_features: size of the representation of a label.
            capsule_size: size of the capsule of a node.
        """
        self.num_features, self.capsule_size = num_features, capsule_size
        num_nodes, hidden_size = len(self.taxonomy), self.backbone.hidden_size
        self.register_buffer("edges", self.taxonomy.edge_index(), persistent=False)
        self.state_dropout = nn.Dropout(0.5)
        self.convolution = nn.Conv1d(hidden_size, num_nodes * num_features, kernel_size=3, padding=1)
        self.label_dropout = nn.Dropout(0.1)
        self.graph = GraphAttention(num_features, self.edges, num_nodes)
        self.gate = nn.Sequential(
            nn.Linear(num_features, num_features), nn.ReLU(), nn.Linear(num_features, num_features)
        )
        self.capsules = Capsules(num_nodes, num_features, capsule_size)

    def forward(self, batch: TextBatch) -> Tensor:
        """Return the scores (logits) of all nodes, ``[B, V]``."""
        length = batch.input_ids.shape[1]
        all_positions = torch.arange(length, device=batch.input_ids.device).expand_as(batch.input_ids)
        states_BLH = self.backbone.states(batch.input_ids, batch.attention_mask, all_positions)
        labels_BVF = self._labels(self.state_dropout(states_BLH), batch.attention_mask.bool())
        related_BVF = self.graph(self.label_dropout(labels_BVF))
        gated_BVF = related_BVF * (1 + self.gate(related_BVF).tanh())
        logits: Tensor = self.capsules(gated_BVF)
        return logits

    def _labels(self, states_BLH: Tensor, mask_BL: Tensor) -> Tensor:
        """Return representations of labels ``[B, V, F]``: maxima of a convolution over the text, without padding."""
        features_BKL = self.convolution((states_BLH * mask_BL[..., None]).transpose(1, 2))
        highest_BK = features_BKL.masked_fill(~mask_BL[:, None], -torch.inf).amax(dim=-1)
        labels_BVF: Tensor = highest_BK.relu().unflatten(-1, (-1, self.num_features))
        return labels_BVF


class GraphAttention(nn.Module):
    """One layer of single-head graph attention: a node attends to its parents, its children and itself.

    Args:
        num_features: size of the representation of a label.
        edges: int64 ``[2, E]``, parents and children.
        num_nodes: number of nodes V.
    """

    neighbours: Tensor

    def __init__(self, num_features: int, edges: Tensor, num_nodes: int) -> None:
        super().__init__()
        neighbours = torch.eye(num_nodes, dtype=torch.bool)
        neighbours[edges[0], edges[1]] = neighbours[edges[1], edges[0]] = True
        self.register_buffer("neighbours", neighbours, persistent=False)
        self.project = nn.Linear(num_features, num_features, bias=False)
        self.query, self.key = nn.Linear(num_features, 1), nn.Linear(num_features, 1)
        self.dropout = nn.Dropout(0.2)

    def forward(self, labels_BVF: Tensor) -> Tensor:
        """Return the representations of labels after attention, ``[B, V, F]``."""
        projected = self.project(labels_BVF)
        scores_BVV = F.leaky_relu(self.query(projected) + self.key(projected).transpose(1, 2))
        attention = scores_BVV.masked_fill(~self.neighbours, -torch.inf).softmax(dim=-1)
        related: Tensor = self.dropout((attention @ projected).relu())
        return related


class Capsules(nn.Module):
    """Capsules of nodes: every label representation votes for each, and votes that agree with it gain weight.

    Args:
        num_nodes: number of nodes V, which is also the number of representations.
        num_features: size of the representation of a label.
        capsule_size: size of the capsule of a node.
    """

    def __init__(self, num_nodes: int, num_features: int, capsule_size: int) -> None:
        super().__init__()
        self.num_dropped = int(_DROPPED * num_nodes)
        self.weight = nn.Parameter(torch.empty(num_nodes, num_features, num_nodes * capsule_size))
        nn.init.normal_(self.weight, std=num_features**-0.5)
        self.capsule_size = capsule_size
        self.dropout = nn.Dropout1d(0.15)

    def forward(self, labels_BVF: Tensor) -> Tensor:
        """Return logits ``[B, V]``, those of the capsules' lengths, from representations ``[B, V, F]``."""
        norms_BV = labels_BVF.norm(dim=-1)
        if self.num_dropped:
            weakest = norms_BV.topk(self.num_dropped, dim=-1, largest=False).indices
            labels_BVF = labels_BVF.scatter(1, weakest[..., None].expand(-1, -1, labels_BVF.shape[-1]), 0.0)
        labels_BVF = self.dropout(labels_BVF)
        votes = torch.einsum("bif,ifk->bik", labels_BVF, self.weight).unflatten(-1, (-1, self.capsule_size))
        with torch.autocast(votes.device.type, enabled=False):  # squares overflow in half precision
            votes = votes.float()
            coupling_BIV = route(votes.detach())
            length_BV = torch.einsum("biv,bivc->bvc", coupling_BIV, votes).square().sum(dim=-1).clamp_min(_TINY)
            return (length_BV / 0.5).log()  # the logit of the squashed capsule's length


def squash(vectors: Tensor) -> Tensor:
    """Return vectors ``[..., C]`` of the same direction, shortened to a length below 1: ``|x| / (0.5 + |x|^2) x``."""
    square = vectors.square().sum(dim=-1, keepdim=True)
    return vectors * (square + _TINY).sqrt() / (0.5 + square)


def route(votes: Tensor) -> Tensor:
    """Return the weight of each vote, found by repeated agreement with the capsules that the votes form.

    One more class that no capsule owns (the orphan) takes the weight of votes that fit nowhere. Routing stops for each
    document on its own, when its agreement has settled.

    Args:
        votes: ``[B, I, V, C]``, without gradients.

    Returns:
        ``[B, I, V]``, whose sums over nodes are at most 1.
    """
    logits_BIV = votes.new_zeros(*votes.shape[:2], votes.shape[2] + 1)
    small = squash(votes)
    running_B = torch.ones(votes.shape[0], dtype=torch.bool, device=votes.device)
    agreement_B = votes.new_full(votes.shape[:1], -torch.inf)
    for _ in range(_MAX_ROUTING_STEPS):
        coupling = logits_BIV.softmax(dim=-1)[..., :-1]
        capsules = squash(torch.einsum("biv,bivc->bvc", coupling, votes))
        distance = (small - capsules[:, None]).norm(dim=-1)
        closeness = 1 - distance
        now_B = (coupling * closeness).sum(dim=(1, 2)).clamp_min(_TINY).log()
        running_B = running_B & ((now_B - agreement_B).abs() >= _CONVERGED)
        if not torch.compiler.is_exporting() and not running_B.any():  # further steps would change nothing
            break
        agreement_B = now_B
        logits_BIV = logits_BIV + F.pad(closeness, (0, 1)) * running_B[:, None, None]
    return logits_BIV.softmax(dim=-1)[..., :-1]
