"""The losses of PTMTTaxoFormer (Eq. 1-3): as pure functions, and as label losses that a setting exchanges.

Shape legend: ``B`` documents, ``V`` nodes (ordered by level), ``D`` levels, ``N`` masked text tokens, ``T`` vocabulary.
All are computed in float32 or better, whatever the precision of the logits.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptmt_lightning.decisions import DECISIONS, Decision, per_node, with_end
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils.checks import check_range

CountScope = Literal["level", "all"]

GROWING: Mapping[str, float] = MappingProxyType({"first": 1.0, "step": 0.5})  # weights of levels grow with depth

TINY = 1e-12


def wasl(
    logits: Tensor, targets: Tensor, *, gamma_pos: float, gamma_neg: float, margin: float, weight: Tensor | float = 1.0
) -> Tensor:
    """Return the weighted asymmetric focal loss of each logit: Eq. 1, with the minus sign that it lacks in print.

    ``-[y w (1-p)^g+ log p + (1-y) pm^g- log(1-pm)]`` with ``pm = max(p - margin, 0)``. The published code of the
    asymmetric loss takes logs of clamped probabilities and gives NaN in half precision; this one works on logits.

    Args:
        logits: any shape.
        targets: 0 or 1, the shape of ``logits``.
        gamma_pos: focusing exponent g+ of the positive term; 0 for none.
        gamma_neg: focusing exponent g- of the negative term; 0 for none.
        margin: what is taken off the probability in the negative term, so that easy negatives cost nothing.
        weight: factor w of the positive term, broadcast to ``logits``.

    Returns:
        The loss, float of the shape of ``logits``.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    positive = targets.to(logits.dtype)
    loss_pos = weight * wasl_of_true(logits, gamma_pos)
    return positive * loss_pos + (1 - positive) * wasl_of_others(logits, gamma_neg, margin)


def wasl_of_true(logits: Tensor, gamma_pos: float) -> Tensor:
    """Return the positive term of :func:`wasl` without its weight, of float logits of any shape."""
    return -(gamma_pos * F.logsigmoid(-logits)).exp() * F.logsigmoid(logits)


def wasl_of_others(logits: Tensor, gamma_neg: float, margin: float) -> Tensor:
    """Return the negative term of :func:`wasl`, of float logits of any shape."""
    if margin == 0:
        return -(gamma_neg * F.logsigmoid(logits)).exp() * F.logsigmoid(-logits)
    # The lower bound keeps the slope of pm ** gamma finite at pm = 0 for gamma < 1, the upper one the log finite at a
    # tiny margin.
    shifted = (logits.sigmoid() - margin).clamp(TINY, 1 - torch.finfo(logits.dtype).eps)
    return -(shifted**gamma_neg) * torch.log1p(-shifted)


def label_excess(probabilities: Tensor, targets: Tensor, level_sizes: Sequence[int]) -> Tensor:
    """Return by how much the expected number of labels is above the true one on each level, ``[B, D]``.

    Args:
        probabilities: ``[B, V]``; their sum is the expected number of labels.
        targets: true nodes, bool ``[B, V]``.
        level_sizes: number of nodes on each level.
    """
    return level_sums(probabilities.float() - targets.float(), level_sizes)


def count_l1(excess: Tensor, slots: Tensor, scope: CountScope = "level") -> Tensor:
    """Return the mean distance between the expected and the true number of labels (section 2.2, "L1-Loss").

    Args:
        excess: ``[B, D]``, see :func:`label_excess`.
        slots: bool ``[B, D]``, the levels that count.
        scope: ``level`` for one distance a level, summed over levels; ``all`` for one over all levels together.
    """
    excess_BD = excess * slots
    distance_B = excess_BD.abs().sum(dim=-1) if scope == "level" else excess_BD.sum(dim=-1).abs()
    return distance_B.mean()


def masked_lm(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Return the mean cross-entropy over the masked text tokens, 0 when a batch has none.

    Args:
        logits: ``[N, T]``, scores of all tokens at the masked positions.
        token_ids: int64 ``[N]``, the tokens that were masked.
    """
    total = F.cross_entropy(logits.float(), token_ids, reduction="sum")
    return total / max(token_ids.numel(), 1)


def level_sums(values: Tensor, level_sizes: Sequence[int]) -> Tensor:
    """Sum values ``[B, V]`` over the nodes of each level: ``[B, D]``."""
    return torch.stack([level.sum(dim=-1) for level in values.split(list(level_sizes), dim=-1)], dim=-1)


def masked_mean(loss_BD: Tensor, slots_BD: Tensor) -> Tensor:
    """Sum losses ``[B, D]`` over the levels whose slot counts, and average them over documents (Eq. 2)."""
    return (loss_BD * slots_BD).sum() / loss_BD.shape[0]


class LabelLoss(nn.Module):
    """Base of the losses that train scores of labels.

    Args:
        class_weights: factors of the loss where a label is true: ``balanced`` for the mean number of training documents
            of a label on its level over that of the label, or a CSV file with the columns ``label`` and ``weight``;
            None for 1. :mod:`ptmt_lightning.training.class_weights` makes them, and :meth:`weigh` takes them.

    Attributes:
        decision: turns scores that this loss has trained into probabilities and labels.
        node_weights: the factors, ``[V]``.
    """

    decision: Decision = DECISIONS["sigmoid"]
    node_weights: Tensor

    def __init__(self, *, class_weights: str | None = None) -> None:
        super().__init__()
        self.class_weights = class_weights
        self.register_buffer("node_weights", torch.ones(1), persistent=False)

    def weigh(self, weights: Sequence[float]) -> None:
        """Take over the factors of the loss where a label is true, one a node."""
        self.node_weights = torch.tensor(weights, dtype=torch.float32)

    def connect(self, taxonomy: Taxonomy) -> Decision:
        """Take over the taxonomy of the nodes, and return the decision for their scores."""
        return self.decision.for_taxonomy(taxonomy)

    def count(self, counts: Sequence[int], num_documents: int) -> None:
        """Take over how many training documents each node and all together have; most losses have no use for it."""

    @abstractmethod
    def forward(self, logits: Tensor, targets: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Return the loss of each document and level, ``[B, D]``, of logits and targets ``[B, V]``."""


class Focusing(NamedTuple):
    """The settings of a loss that is :func:`wasl`, summed over the labels of a level."""

    gamma_pos: float
    gamma_neg: float
    margin: float
    weight: Tensor  # [V], factors of the positive term
    scale: float = 1.0  # factor of the whole loss


class FocalLoss(LabelLoss):
    """Base of the losses that are :func:`wasl`, summed over the labels of a level.

    :mod:`ptmt_lightning.chunked_loss` computes these for some labels at a time.
    """

    @abstractmethod
    def focusing(self, level_sizes: Sequence[int], device: torch.device) -> Focusing:
        """Return the settings for nodes on levels of these sizes."""

    def forward(self, logits: Tensor, targets: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Return the loss of each document and level, ``[B, D]``, of logits and targets ``[B, V]``."""
        focus = self.focusing(level_sizes, logits.device)
        loss_BV = wasl(
            logits, targets, gamma_pos=focus.gamma_pos, gamma_neg=focus.gamma_neg, margin=focus.margin,
            weight=focus.weight,
        )  # fmt: skip
        return level_sums(loss_BV, level_sizes) * focus.scale


class WASL(FocalLoss):
    """Weighted asymmetric focal loss (Eq. 1), summed over the labels of a level (Eq. 2).

    Args:
        gamma_pos: see :func:`wasl`.
        gamma_neg: see :func:`wasl`.
        margin: see :func:`wasl`.
        level_weights: weight of the positive term at each level: a list with one number a level,
            or ``{first: a, step: b}`` for ``a, a + b, a + 2b, ...``.
        class_weights: weight of the positive term of each label, beside that of its level; see :class:`LabelLoss`.

    Raises:
        ValueError: a setting that is out of range.
    """

    def __init__(
        self,
        *,
        gamma_pos: float = 1,
        gamma_neg: float = 4,
        margin: float = 0.05,
        level_weights: Sequence[float] | Mapping[str, float] = GROWING,
        class_weights: str | None = None,
    ) -> None:
        super().__init__(class_weights=class_weights)
        check_range("loss.gamma_pos", gamma_pos, 0)
        check_range("loss.gamma_neg", gamma_neg, 0)
        check_range("loss.margin", margin, 0, 1, high_open=True)
        _check_level_weights(level_weights)
        self.gamma_pos, self.gamma_neg, self.margin = gamma_pos, gamma_neg, margin
        self.level_weights = dict(level_weights) if isinstance(level_weights, Mapping) else list(level_weights)

    def weights_of_levels(self, num_levels: int) -> list[float]:
        """Return the weight of the positive term at each level.

        Raises:
            ValueError: a list with another number of weights than levels, or a weight below 0.
        """
        if isinstance(self.level_weights, Mapping):
            first, step = self.level_weights["first"], self.level_weights["step"]
            weights = [first + step * level for level in range(num_levels)]
            if min(weights) < 0:
                raise ValueError(
                    f"loss.level_weights={dict(self.level_weights)}: level {num_levels} would weigh {weights[-1]:g}; "
                    "raise first or step"
                )
            return weights
        if len(self.level_weights) != num_levels:
            raise ValueError(
                f"loss.level_weights={list(self.level_weights)}: expected {num_levels} numbers, one a level of the "
                "taxonomy; give that many, or {first: 1, step: 0.5}"
            )
        return list(self.level_weights)

    def focusing(self, level_sizes: Sequence[int], device: torch.device) -> Focusing:
        """Return the settings for nodes on levels of these sizes."""
        weight_V = per_node(self.weights_of_levels(len(level_sizes)), level_sizes, device) * self.node_weights
        return Focusing(self.gamma_pos, self.gamma_neg, self.margin, weight_V)


class WeightedBCE(WASL):
    """Weighted binary cross-entropy (Table 3): :class:`WASL` without focusing and margin.

    Args:
        level_weights: see :class:`WASL`.
        class_weights: see :class:`WASL`.
    """

    def __init__(
        self,
        *,
        level_weights: Sequence[float] | Mapping[str, float] = GROWING,
        class_weights: str | None = None,
    ) -> None:
        super().__init__(gamma_pos=0, gamma_neg=0, margin=0, level_weights=level_weights, class_weights=class_weights)


class MeanBCE(FocalLoss):
    """Binary cross-entropy averaged over all labels, as the systems that PTMT is compared with use it.

    Args:
        gamma: focusing exponent of the focal loss (Lin et al. 2017); 0 for plain cross-entropy.
        weight: factor of the whole loss.
        class_weights: weight of the positive term of each label; see :class:`LabelLoss`.
    """

    def __init__(self, *, gamma: float = 0.0, weight: float = 1.0, class_weights: str | None = None) -> None:
        super().__init__(class_weights=class_weights)
        check_range("loss.gamma", gamma, 0)
        check_range("loss.weight", weight, 0)
        self.gamma, self.weight = gamma, weight

    def focusing(self, level_sizes: Sequence[int], device: torch.device) -> Focusing:
        """Return the settings for nodes on levels of these sizes."""
        size = sum(level_sizes)
        return Focusing(self.gamma, self.gamma, 0.0, self.node_weights.expand(size), self.weight / size)


class ZMLCE(LabelLoss):
    """Zero-bounded log-sum-exp and cross-entropy, a level at a time: the loss of HPT (Wang et al. 2022).

    ``log(1 + sum over true labels of exp(-s)) + log(1 + sum over others of exp(s))``: scores of true labels are pushed
    above 0, others below, the worst the most. At threshold 1/2 a score of 0 decides, as published.

    Args:
        class_weights: factor of ``exp(-s)`` of each label; see :class:`LabelLoss`.
    """

    def forward(self, logits: Tensor, targets: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Return the loss of each document and level, ``[B, D]``, of logits and targets ``[B, V]``."""
        weighted = -logits.float() + self.node_weights.log()
        true, other = weighted.where(targets.bool(), -torch.inf), logits.float().masked_fill(targets.bool(), -torch.inf)
        sizes = list(level_sizes)
        return torch.stack(
            [
                with_end(positive).logsumexp(dim=-1) + with_end(negative).logsumexp(dim=-1)
                for positive, negative in zip(true.split(sizes, dim=-1), other.split(sizes, dim=-1), strict=True)
            ],
            dim=-1,
        )


class CrossEntropy(LabelLoss):
    """Cross-entropy over the labels of each level, for data with one path a document (end of section 2.2).

    Each level has one class more, "the path has ended": the target of the levels below the end of a path, and of all
    levels of a document without a label; see :class:`~ptmt_lightning.decisions.LevelSoftmax`.

    Args:
        class_weights: factor of the loss of a level where a label is the true one, 1 where the path has ended; see
            :class:`LabelLoss`.
    """

    decision = DECISIONS["level_softmax"]

    def forward(self, logits: Tensor, targets: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Return the loss of each document and level, ``[B, D]``, of logits and targets ``[B, V]``."""
        losses = []
        weights = self.node_weights.expand(sum(level_sizes)).split(list(level_sizes))
        for (level_logits, level_targets), level_weights in zip(
            _levels(logits, targets, level_sizes), weights, strict=True
        ):
            ended = ~level_targets.any(dim=-1)
            log_p = with_end(level_logits).log_softmax(dim=-1)
            true = torch.where(ended, level_targets.shape[-1], level_targets.int().argmax(dim=-1))
            losses.append(-log_p.gather(-1, true[:, None]).squeeze(-1) * F.pad(level_weights, (0, 1), value=1.0)[true])
        return torch.stack(losses, dim=-1)


def _levels(logits: Tensor, targets: Tensor, level_sizes: Sequence[int]) -> zip[tuple[Tensor, Tensor]]:
    sizes = list(level_sizes)
    return zip(logits.split(sizes, dim=-1), targets.bool().split(sizes, dim=-1), strict=True)


def _check_level_weights(level_weights: Sequence[float] | Mapping[str, float]) -> None:
    if isinstance(level_weights, Mapping):
        if set(level_weights) != {"first", "step"}:
            raise ValueError(
                f"loss.level_weights={dict(level_weights)}: expected the keys 'first' and 'step', or a list with one "
                "number a level"
            )
        check_range("loss.level_weights.first", level_weights["first"], 0)
        check_range("loss.level_weights.step", level_weights["step"], float("-inf"))
        return
    if isinstance(level_weights, str) or not isinstance(level_weights, Sequence):
        raise ValueError(
            f"loss.level_weights={level_weights!r}: expected a list with one number a level, or first and step"
        )
    for level, weight in enumerate(level_weights, start=1):
        check_range(f"loss.level_weights[{level}]", weight, 0)
