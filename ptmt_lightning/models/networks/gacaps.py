"""The layers of GACaps: a convolution over the text, graph attention over labels, capsules with dynamic routing.

Shape legend: ``B`` documents, ``L`` sequence length, ``V`` nodes, ``F`` features of a label, ``C`` size of a capsule,
``I`` capsules that vote (V), ``K`` channels of the convolution (V F).
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptmt_lightning.models.networks.text import TextBatch, TextNetwork

_MAX_ROUTING_STEPS = 40  # most documents need 20 to 35
_CONVERGED = 0.05  # routing stops when the log agreement changes by less
_KEPT = 0.95  # share of label representations, the strongest, that vote
_LOWEST_SQUARE = 5e-7  # of the length of a capsule before it is squashed: that of probability 1e-6
_TINY = 1e-12


class GACapsNetwork(TextNetwork):
    """Represents labels by a convolution over the text, relates them to each other, and routes them to capsules."""

    sizes: ClassVar[dict[str, int]] = {"num_features": 2**16, "capsule_size": 2**16}
    layout: ClassVar[int] = 2  # the first had a matrix of votes for each representation, and no scale of votes
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
        self.gate = Gate(num_nodes, num_features)
        self.capsules = Capsules(num_nodes, num_features, capsule_size)

    def forward(self, batch: TextBatch) -> Tensor:
        """Return the scores (logits) of all nodes, ``[B, V]``."""
        logits: Tensor = self.capsules(self.label_representations(batch))
        return logits

    def label_representations(self, batch: TextBatch) -> Tensor:
        """Return the representations of labels that vote, ``[B, V, F]``."""
        length = batch.input_ids.shape[1]
        all_positions = torch.arange(length, device=batch.input_ids.device).expand_as(batch.input_ids)
        states_BLH = self.backbone.states(batch.input_ids, batch.attention_mask, all_positions)
        labels_BVF = self._labels(self.state_dropout(states_BLH), batch.attention_mask.bool())
        gated_BVF: Tensor = self.gate(self.graph(self.label_dropout(labels_BVF)))
        return gated_BVF

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
        self.project = nn.Linear(num_features, num_features)
        self.query, self.key = (nn.Linear(num_features, 1, bias=False) for _ in range(2))
        self.dropout = nn.Dropout(0.2)

    def forward(self, labels_BVF: Tensor) -> Tensor:
        """Return the representations of labels after attention, ``[B, V, F]``."""
        projected = self.project(labels_BVF)
        scores_BVV = F.leaky_relu(self.query(projected) + self.key(projected).transpose(1, 2))
        attention = scores_BVV.masked_fill(~self.neighbours, -torch.inf).softmax(dim=-1)
        related: Tensor = self.dropout((attention @ projected).relu())
        return related


class Gate(nn.Module):
    """Scales the representation of each label by one number between 0 and 2, found from those of all labels.

    Args:
        num_nodes: number of nodes V.
        num_features: size of the representation of a label.
    """

    def __init__(self, num_nodes: int, num_features: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(num_nodes * num_features, num_nodes), nn.Linear(num_nodes, num_nodes)

    def forward(self, labels_BVF: Tensor) -> Tensor:
        """Return the scaled representations of labels, ``[B, V, F]``."""
        scales_BV: Tensor = 1 + self.outer(self.inner(labels_BVF.flatten(1)).relu()).tanh()
        return labels_BVF * scales_BV[..., None]


class Capsules(nn.Module):
    """Capsules of nodes: every label representation votes for each, and votes that agree with it gain weight.

    One matrix, which all representations share, and a bias for each representation make the votes.

    Args:
        num_nodes: number of nodes V, which is also the number of representations.
        num_features: size of the representation of a label.
        capsule_size: size of the capsule of a node.

    Attributes:
        vote_scale: factor of the votes in evaluation, a scalar that is saved with the parameters. Dropout before a
            maximum and before norms makes votes longer in training; the factor makes up for it.
    """

    vote_scale: Tensor

    def __init__(self, num_nodes: int, num_features: int, capsule_size: int) -> None:
        super().__init__()
        self.num_voters = max(1, int(num_nodes * _KEPT))
        self.capsule_size = capsule_size
        self.weight = nn.Parameter(torch.empty(num_features, num_nodes * capsule_size))
        nn.init.uniform_(self.weight, -(num_nodes**-0.5), num_nodes**-0.5)
        self.bias = nn.Parameter(torch.zeros(num_nodes, num_nodes * capsule_size))
        self.register_buffer("vote_scale", torch.ones(()))
        self.dropout = CapsuleDropout(0.15)

    def forward(self, labels_BVF: Tensor) -> Tensor:
        """Return logits ``[B, V]``, those of the capsules' lengths, from representations ``[B, V, F]``."""
        votes = self.votes(labels_BVF)
        with torch.autocast(votes.device.type, enabled=False):  # squares overflow in half precision
            votes = votes.float()
            if not self.training:
                votes = votes * self.vote_scale
            square_BV = route(votes).square().sum(dim=-1).clamp_min(_LOWEST_SQUARE)
            return (square_BV / 0.5).log()  # the logit of the squashed capsule's length

    def votes(self, labels_BVF: Tensor) -> Tensor:
        """Return the votes before they are scaled, ``[B, I, V, C]``; those of the weakest representations are zero."""
        strongest = labels_BVF.norm(dim=-1).topk(self.num_voters, dim=-1).indices
        voters_BI = torch.zeros_like(labels_BVF[..., 0]).scatter(1, strongest, 1.0)
        votes_BIK = (labels_BVF @ self.weight + self.bias) * self.dropout(voters_BI)[..., None]
        votes: Tensor = votes_BIK.unflatten(-1, (-1, self.capsule_size))
        return votes


class CapsuleDropout(nn.Module):
    """Dropout that divides what it keeps by ``sqrt(1 - p)``, so that the expected square stays what it is.

    Args:
        p: probability of dropping a number.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        """Return the values, some of them dropped in training."""
        if not self.training:
            return values
        return values * (torch.rand_like(values) >= self.p) / math.sqrt(1 - self.p)


def squash(vectors: Tensor) -> Tensor:
    """Return vectors ``[..., C]`` of the same direction, shortened to a length below 1: ``|x| / (0.5 + |x|^2) x``."""
    square = vectors.square().sum(dim=-1, keepdim=True)
    return vectors * square.clamp_min(_TINY).sqrt() / (0.5 + square)


def route(votes: Tensor) -> Tensor:
    """Return the capsules before they are squashed: sums of votes, weighed by repeated agreement.

    One more class that no capsule owns (the orphan) takes the weight of votes that fit nowhere. Routing stops when the
    log of the agreement, a sum of distances from 1 weighed by the logits so far, has settled: for each document on its
    own, where the published code stops on the sum over the batch, so that a prediction depends on the batch.

    Args:
        votes: ``[B, I, V, C]``; gradients flow through all steps.

    Returns:
        ``[B, V, C]``.
    """
    votes = votes.transpose(1, 2).contiguous()  # [B, V, I, C], of which each step makes two batched products
    small = squash(votes)
    small_square = small.square().sum(dim=-1)
    logits_BVI = votes.new_zeros(votes.shape[:3])
    agreement_B = votes.new_zeros(votes.shape[:1])
    running_B = torch.ones(votes.shape[0], dtype=torch.bool, device=votes.device)
    capsules_BVC = votes.new_zeros(votes.shape[0], votes.shape[1], votes.shape[3])
    for _ in range(_MAX_ROUTING_STEPS):
        coupling_BVI = F.pad(logits_BVI, (0, 0, 0, 1)).softmax(dim=1)[:, :-1]  # the orphan's logit stays 0
        sums_BVC = (coupling_BVI[:, :, None] @ votes)[:, :, 0]
        capsules_BVC = sums_BVC.where(running_B[:, None, None], capsules_BVC)
        squashed = squash(capsules_BVC)
        squashed = squash(capsules_BVC)
        # |a - b|^2 in parts: differences of all votes would be kept for the gradients of each step.
        product = (small @ squashed[..., None])[..., 0]
        square = small_square - 2 * product + squashed.square().sum(dim=-1, keepdim=True)
        closeness_BVI = 1 - square.clamp_min(_TINY).sqrt()
        logits_BVI = logits_BVI + closeness_BVI * running_B[:, None, None]
        now_B = (logits_BVI * closeness_BVI).detach().sum(dim=(1, 2)).clamp_min(_TINY).log()
        running_B = running_B & ((now_B - agreement_B).abs() >= _CONVERGED)
        if not torch.compiler.is_exporting() and not running_B.any():  # further steps would change nothing
            break
        agreement_B = now_B
    return capsules_BVC
