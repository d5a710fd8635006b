"""Label loss and expected numbers of labels of many nodes, computed for some nodes at a time.

Scores ``[B, V]``, what is made of them, and their gradients are never held at once: backward computes the scores again,
and their gradient by its formula. All is computed in float32 or better.

Shape legend: ``B`` documents, ``D`` levels, ``V`` nodes (ordered by level), ``H`` hidden size, ``N`` rows of new
tokens, those of nodes last, ``C`` nodes of a chunk, ``P`` pairs of a document and a true node.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ptmt_lightning.decisions import Sigmoid
from ptmt_lightning.losses import TINY, FocalLoss, Focusing, LabelLoss, wasl_of_others, wasl_of_true

_CELLS = 2**20  # scores that are held at a time
_LOWEST = -1e4  # a score with probability 0 and finite logarithms
_MANY = 2**22  # scores of a batch from which on chunks are worth it: the plain way holds some fifteen such tensors


class LabelSums(NamedTuple):
    """What training needs to know of the scores of labels."""

    losses: Tensor  # [B, D], as a LabelLoss returns them
    excess: Tensor  # [B, D], see label_excess


def goes_in_chunks(loss: LabelLoss, num_scores: int) -> TypeGuard[FocalLoss]:
    """Return whether :func:`label_sums` computes this loss, and a batch has so many scores ``B x V`` that it should.

    Below, the plain way is as fast or faster, and takes little memory.
    """
    is_plain = isinstance(loss, FocalLoss) and type(loss).forward is FocalLoss.forward
    return is_plain and isinstance(loss.decision, Sigmoid) and num_scores >= _MANY


def label_sums(
    states: Tensor, rows: Tensor, bias: Tensor, targets: Tensor, level_sizes: Sequence[int], focusing: Focusing
) -> LabelSums:
    """Return the losses and the excess of labels where level i is scored from state i.

    They equal those of the plain way: scores ``states[:, i] @ rows.T + bias`` of the nodes of level i, then the loss,
    and the sum of their sigmoids.

    Args:
        states: ``[B, D, H]``.
        rows: output embeddings, ``[N, H]``, of which the last ``V`` are those of nodes.
        bias: their biases, ``[N]``.
        targets: true nodes, bool ``[B, V]``.
        level_sizes: number of nodes on each level.
        focusing: settings of the loss.
    """
    sums = _LabelSums.apply(states, rows, bias, targets, tuple(level_sizes), focusing)  # type: ignore[no-untyped-call]
    return LabelSums(*sums)


class _TrueNodes(NamedTuple):
    """The pairs of a document and a true node, and the scores of these."""

    documents: Tensor  # int64 [P]
    levels: Tensor  # int64 [P], from 0 on
    rows: Tensor  # int64 [P], where the nodes are among the N rows
    nodes: Tensor  # int64 [P]
    logits: Tensor  # [P]


class _LabelSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        rows: Tensor,
        bias: Tensor,
        targets: Tensor,
        level_sizes: tuple[int, ...],
        focusing: Focusing,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(states, rows, bias, targets)
        ctx.level_sizes, ctx.focusing = level_sizes, focusing
        _, gamma_neg, margin, _, scale = focusing
        with torch.autocast(states.device.type, enabled=False):
            states_BDH = _exact(states)
            losses_BD = states_BDH.new_zeros(len(states), len(level_sizes))
            excess_BD = torch.zeros_like(losses_BD)
            for level, nodes, chunk in _chunks(level_sizes, len(states), len(rows)):
                logits_BC = _other_logits(states_BDH[:, level], _exact(rows[chunk]), bias[chunk], targets[:, nodes])
                losses_BD[:, level] += wasl_of_others(logits_BC, gamma_neg, margin).sum(dim=-1)
                excess_BD[:, level] += logits_BC.sigmoid().sum(dim=-1)
            true = _true_nodes(states_BDH, rows, bias, targets, level_sizes)
            places = (true.documents, true.levels)
            loss_P = focusing.weight[true.nodes] * wasl_of_true(true.logits, focusing.gamma_pos)
            losses_BD.index_put_(places, loss_P.to(losses_BD.dtype), accumulate=True)
            excess_BD.index_put_(places, -(-true.logits).sigmoid(), accumulate=True)
        return losses_BD * scale, excess_BD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_losses_BD: Tensor, d_excess_BD: Tensor) -> tuple[Tensor | None, ...]:
        states, rows, bias, targets = ctx.saved_tensors
        gamma_pos, gamma_neg, margin, weight_V, scale = ctx.focusing
        d_losses_BD = d_losses_BD * scale
        with torch.autocast(states.device.type, enabled=False):
            states_BDH = _exact(states)
            d_states, d_rows, d_bias = (torch.zeros_like(_exact(tensor)) for tensor in (states, rows, bias))
            for level, nodes, chunk in _chunks(ctx.level_sizes, len(states), len(rows)):
                rows_CH, states_BH = _exact(rows[chunk]), states_BDH[:, level]
                logits_BC = _other_logits(states_BH, rows_CH, bias[chunk], targets[:, nodes])
                p_BC = logits_BC.sigmoid()
                d_logits_BC = d_losses_BD[:, level, None] * _slope_of_others(logits_BC, gamma_neg, margin)
                d_logits_BC += d_excess_BD[:, level, None] * p_BC * (1 - p_BC)
                torch.mm(d_logits_BC.T, states_BH, out=d_rows[chunk])
                d_states[:, level] += d_logits_BC @ rows_CH
                d_bias[chunk] = d_logits_BC.sum(dim=0)
            true = _true_nodes(states_BDH, rows, bias, targets, ctx.level_sizes)
            places = (true.documents, true.levels)
            slope_P = d_losses_BD[places] * weight_V[true.nodes] * _slope_of_true(true.logits, gamma_pos)
            slope_P += d_excess_BD[places] * true.logits.sigmoid() * (-true.logits).sigmoid()
            d_states.index_put_(places, slope_P[:, None] * _exact(rows[true.rows]), accumulate=True)
            d_rows.index_add_(0, true.rows, slope_P[:, None] * states_BDH[places])
            d_bias.index_add_(0, true.rows, slope_P)
        return d_states.to(states.dtype), d_rows.to(rows.dtype), d_bias.to(bias.dtype), None, None, None


def _exact(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _other_logits(states: Tensor, rows: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Return the scores ``[B, C]`` of nodes, for those that are true one so low that it gives nothing to any sum."""
    return torch.addmm(_exact(bias), states, rows.T).masked_fill_(targets, _LOWEST)


def _chunks(level_sizes: Sequence[int], num_documents: int, num_rows: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield a level, from 0 on, some nodes of it, and their rows."""
    size, stop = max(1, _CELLS // num_documents), 0
    offset = num_rows - sum(level_sizes)
    for level, level_size in enumerate(level_sizes):
        start, stop = stop, stop + level_size
        for first in range(start, stop, size):
            last = min(first + size, stop)
            yield level, slice(first, last), slice(offset + first, offset + last)


def _true_nodes(states: Tensor, rows: Tensor, bias: Tensor, targets: Tensor, level_sizes: Sequence[int]) -> _TrueNodes:
    documents, nodes = targets.nonzero(as_tuple=True)
    ends = torch.tensor(list(itertools.accumulate(level_sizes)), device=nodes.device)
    levels = torch.bucketize(nodes, ends, right=True)
    at = nodes + (len(rows) - int(ends[-1]))
    logits = (states[documents, levels] * _exact(rows[at])).sum(dim=-1) + _exact(bias[at])
    return _TrueNodes(documents, levels, at, nodes, logits)


def _slope_of_true(logits: Tensor, gamma: float) -> Tensor:
    """Return the derivative of :func:`~ptmt_lightning.losses.wasl_of_true`."""
    p, not_p = logits.sigmoid(), (-logits).sigmoid()
    return (gamma * F.logsigmoid(-logits)).exp() * (gamma * p * F.logsigmoid(logits) - not_p)


def _slope_of_others(logits: Tensor, gamma: float, margin: float) -> Tensor:
    """Return the derivative of :func:`~ptmt_lightning.losses.wasl_of_others`."""
    p, not_p = logits.sigmoid(), (-logits).sigmoid()
    if margin == 0:
        return (gamma * F.logsigmoid(logits)).exp() * (p - gamma * not_p * F.logsigmoid(-logits))
    highest = 1 - torch.finfo(logits.dtype).eps
    shifted = (p - margin).clamp(TINY, highest)
    slope = shifted**gamma / (1 - shifted) - gamma * shifted ** (gamma - 1) * torch.log1p(-shifted)
    is_free = (p - margin >= TINY) & (p - margin <= highest)  # elsewhere the bounds hold it
    return slope * (p * not_p * is_free)
