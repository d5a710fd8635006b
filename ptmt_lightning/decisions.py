"""Decisions: how scores of labels become probabilities, how these become predicted labels, and where scores start.

A loss names the decision that its scores are trained for. A saved model names it as well, and is used without its loss.

Shape legend: ``B`` documents, ``V`` nodes (ordered by level), ``D`` levels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ptmt_lightning.calibration import Calibration, read_calibration
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.siblings import Siblings
from ptmt_lightning.utils.checks import check_range

DEFAULT_THRESHOLD = 0.5
Decoding = Literal["threshold", "best_path", "top_k"]


class Decision(ABC):
    """Turns scores into probabilities, and probabilities into predicted labels.

    Attributes:
        name: identifies the decision in the folder of a saved model.
        single_label: whether at most one label a level is expected and predicted, without a threshold.
    """

    name: ClassVar[str]
    single_label: ClassVar[bool]

    def for_taxonomy(self, taxonomy: Taxonomy) -> Decision:
        """Return the decision for scores of a taxonomy's nodes; most need to know no more than the sizes of levels."""
        return self

    @abstractmethod
    def probabilities(self, logits: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Return float32 probabilities ``[B, V]`` of scores (logits) ``[B, V]``."""

    @abstractmethod
    def log_odds(self, logits: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Return the logarithms of ``p / (1 - p)`` of all probabilities, float32 ``[B, V]``, of scores ``[B, V]``."""

    @abstractmethod
    def predict(self, probabilities: Tensor, level_sizes: Sequence[int], thresholds: Sequence[float]) -> Tensor:
        """Return which nodes are predicted, bool ``[B, V]``, by probabilities ``[B, V]`` and one threshold a level."""

    @abstractmethod
    def initial_logits(self, level_sizes: Sequence[int]) -> Tensor:
        """Return the initial biases of scores, float32 ``[V]``: they expect about one true label on each level."""

    @abstractmethod
    def logits_of(self, probabilities: Tensor, level_sizes: Sequence[int], *, least: float) -> Tensor:
        """Return scores ``[V]`` that give labels these probabilities ``[V]``.

        Args:
            probabilities: within (0, 1).
            level_sizes: number of nodes on each level.
            least: lowest probability that a path ends above a level.

        Raises:
            ValueError: the scores have a prior of their own already.
        """


class Sigmoid(Decision):
    """Decides for each label on its own: it is predicted if its probability is above the threshold of its level."""

    name = "sigmoid"
    single_label = False

    def probabilities(self, logits: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Return the sigmoid of each score, float32 ``[B, V]``."""
        return logits.float().sigmoid()

    def log_odds(self, logits: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Return the scores: they are the log odds."""
        return logits.float()

    def predict(self, probabilities: Tensor, level_sizes: Sequence[int], thresholds: Sequence[float]) -> Tensor:
        """Return the labels that are above the threshold of their level, bool ``[B, V]``."""
        return probabilities > per_node(thresholds, level_sizes, probabilities.device)

    def initial_logits(self, level_sizes: Sequence[int]) -> Tensor:
        """Return ``log(1 / n)`` for each label, ``n`` being the number of labels on its level.

        With biases of 0 every label would start at probability 1/2, and the first training steps would do little but
        push them all down.
        """
        return per_node([-math.log(size) for size in level_sizes], level_sizes, torch.device("cpu"))

    def logits_of(self, probabilities: Tensor, level_sizes: Sequence[int], *, least: float) -> Tensor:
        """Return the log odds of probabilities, ``[V]``."""
        return probabilities.logit()


class LevelSoftmax(Decision):
    """Chooses at most one label on each level, by a softmax over its labels and "the path has ended", with logit 0.

    Without that class a path that ends early would have no target on the levels below, and the model could not
    predict that there is no label (end of section 2.2).
    """

    name = "level_softmax"
    single_label = True

    def probabilities(self, logits: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Return the softmax over each level, float32 ``[B, V]``; the rest to 1 is that the path has ended."""
        levels = logits.split(list(level_sizes), dim=-1)
        return torch.cat([with_end(level).softmax(dim=-1)[..., :-1] for level in levels], dim=-1)

    def log_odds(self, logits: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Return by how much the score of each label is above all others of its level, and the end, together."""
        levels = []
        for level in logits.split(list(level_sizes), dim=-1):
            log_p = with_end(level).log_softmax(dim=-1)[..., :-1]
            levels.append(log_p - torch.log1p(-log_p.exp().clamp_max(1 - torch.finfo(log_p.dtype).eps)))
        return torch.cat(levels, dim=-1)

    def predict(self, probabilities: Tensor, level_sizes: Sequence[int], thresholds: Sequence[float]) -> Tensor:
        """Return the most probable label of each level, bool ``[B, V]``; thresholds are ignored.

        A level has none where "the path has ended" is at least as probable.
        """
        chosen = []
        for level in probabilities.split(list(level_sizes), dim=-1):
            best, index = level.max(dim=-1, keepdim=True)
            ended = 1 - level.sum(dim=-1, keepdim=True)
            chosen.append(torch.zeros_like(level, dtype=torch.bool).scatter_(-1, index, best > ended))
        return torch.cat(chosen, dim=-1)

    def initial_logits(self, level_sizes: Sequence[int]) -> Tensor:
        """Return zeros: a softmax already expects at most one label on each level."""
        return torch.zeros(sum(level_sizes))

    def logits_of(self, probabilities: Tensor, level_sizes: Sequence[int], *, least: float) -> Tensor:
        """Return the logarithms of how many times as probable as the end of the path each label is, ``[V]``."""
        levels = probabilities.split(list(level_sizes))
        return torch.cat([level.log() - (1 - level.sum()).clamp_min(least).log() for level in levels])


class ConditionalSoftmax(LevelSoftmax):
    """Chooses at most one label on each level, by a softmax over the children of each parent and "the path has ended".

    The probability of a node is the product down the path to it; in a DAG, the sum of these over all paths to it
    (Plaud et al. 2024, who have trees).

    Args:
        siblings: of the taxonomy, see :meth:`for_taxonomy`.
    """

    name = "conditional_softmax"

    def __init__(self, siblings: Siblings | None = None) -> None:
        self.siblings = siblings

    def for_taxonomy(self, taxonomy: Taxonomy) -> ConditionalSoftmax:
        """Return the decision for scores of a taxonomy's nodes."""
        return ConditionalSoftmax(Siblings(taxonomy))

    def probabilities(self, logits: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Return the probability of a path through each node, float32 ``[B, V]``."""
        assert self.siblings is not None
        return self.siblings.to(logits.device).probabilities(logits)

    def log_odds(self, logits: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Return the log odds of a path through each node, float32 ``[B, V]``."""
        return self.probabilities(logits, level_sizes).logit(eps=torch.finfo(torch.float32).eps)

    def logits_of(self, probabilities: Tensor, level_sizes: Sequence[int], *, least: float) -> Tensor:
        """Raise a ValueError: in training, the loss adds the logarithms of frequencies to these scores."""
        raise ValueError(
            "model.bias_init=frequency: loss=conditional_softmax adjusts scores by the frequencies of labels itself; "
            "set model.bias_init=level"
        )


DECISIONS: dict[str, Decision] = {
    decision.name: decision for decision in (Sigmoid(), LevelSoftmax(), ConditionalSoftmax())
}


@dataclass(frozen=True, kw_only=True)
class DecisionRule:
    """The rule by which labels are predicted from scores, in validation and test and with a saved model.

    Args:
        taxonomy: hierarchy of the labels.
        decision: turns scores into probabilities, and these into labels.
        decoding: ``threshold`` to let the decision choose labels, each on its own or the best of a level;
            ``best_path`` for the most probable path of each document, see :meth:`.Taxonomy.best_path`; ``top_k`` for
            the most probable labels of each level.
        thresholds: one a level; a node is predicted if its probability is above that of its level.
        top_k: highest number of nodes predicted on a level, the most probable ones; None for any number.
        to_leaf: with ``best_path``: whether each path leads down to a leaf.
        prune: drop predicted nodes below level 1 without a predicted parent.
        coherent: lower the probability of a node to at most that of its most probable parent.
        calibration: corrects probabilities, before they are made coherent; None for those of the decision. Thresholds
            are compared with corrected ones.
    """

    taxonomy: Taxonomy
    decision: Decision
    thresholds: tuple[float, ...]
    decoding: Decoding = "threshold"
    top_k: int | None = None
    to_leaf: bool = False
    prune: bool = True
    coherent: bool = False
    calibration: Calibration | None = None

    @property
    def has_thresholds(self) -> bool:
        """Whether thresholds decide what is predicted."""
        return self.decoding == "threshold" and not self.decision.single_label

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return float32 probabilities ``[B, V]`` of scores (logits) ``[B, V]``."""
        sizes = self.taxonomy.level_sizes
        if self.calibration is None:
            probabilities = self.decision.probabilities(logits, sizes)
        else:
            probabilities = self.calibration.apply(self.decision.probabilities, logits, sizes)
        return self.taxonomy.coherent(probabilities) if self.coherent else probabilities

    def predict(self, probabilities: Tensor) -> Tensor:
        """Return which nodes are predicted, bool ``[B, V]``, by probabilities ``[B, V]``."""
        if self.decoding == "best_path":
            return self.taxonomy.best_path(probabilities, to_leaf=self.to_leaf)
        predicted = torch.ones_like(probabilities, dtype=torch.bool)
        if self.decoding == "threshold":
            predicted = self.decision.predict(probabilities, self.taxonomy.level_sizes, self.thresholds)
        if self.top_k is not None:
            predicted = predicted & self._most_probable(probabilities, self.top_k)
        return self.taxonomy.prune(predicted) if self.prune else predicted

    def _most_probable(self, probabilities: Tensor, top_k: int) -> Tensor:
        """Return the ``top_k`` most probable nodes of each level, bool ``[B, V]``."""
        kept = torch.zeros_like(probabilities, dtype=torch.bool)
        for nodes in self.taxonomy.level_slices:
            level = probabilities[:, nodes]
            best = level.topk(min(top_k, level.shape[1]), dim=-1).indices
            kept[:, nodes] = torch.zeros_like(level, dtype=torch.bool).scatter_(-1, best, True)
        return kept

    def to_json(self) -> dict[str, Any]:
        """Return the fields that a saved model keeps, as plain types: all but the taxonomy."""
        return {
            "decision": self.decision.name,
            "decoding": self.decoding,
            "thresholds": list(self.thresholds),
            "top_k": self.top_k,
            "to_leaf": self.to_leaf,
            "prune": self.prune,
            "coherent": self.coherent,
            "calibration": self.calibration and self.calibration.to_json(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], taxonomy: Taxonomy) -> DecisionRule:
        """Return the rule whose fields :meth:`to_json` returned.

        Raises:
            ValueError: the decision or decoding is not known, or thresholds or calibration don't fit the taxonomy.
        """
        name = content["decision"]
        if name not in DECISIONS:
            raise ValueError(f"decision {name!r} is not known; expected one of {', '.join(DECISIONS)}")
        decoding = content.get("decoding", "threshold")  # versions before 0.2 have no other
        top_k = content.get("top_k")
        check_decoding(decoding, top_k, key="")
        return cls(
            taxonomy=taxonomy,
            decision=DECISIONS[name].for_taxonomy(taxonomy),
            decoding=decoding,
            thresholds=per_level("thresholds", content["thresholds"] or [], taxonomy.num_levels),
            top_k=top_k,
            to_leaf=content.get("to_leaf", False),
            prune=content["prune"],
            coherent=content["coherent"],
            calibration=read_calibration(content.get("calibration"), taxonomy.num_levels),
        )


def check_decoding(decoding: str, top_k: int | None, *, key: str = "model.") -> None:
    """Refuse a decoding that is not known, or a number of labels that does not go with it.

    Args:
        decoding: see :class:`DecisionRule`.
        top_k: see :class:`DecisionRule`.
        key: what names of settings begin with in error messages.

    Raises:
        ValueError: says what to set.
    """
    if decoding not in get_args(Decoding):
        raise ValueError(f"{key}decoding={decoding!r}: expected one of {', '.join(get_args(Decoding))}")
    if top_k is not None:
        check_range(f"{key}top_k", top_k, 1, integer=True)
        if decoding != "top_k":
            raise ValueError(
                f"{key}top_k={top_k} goes with {key}decoding=top_k, not {decoding}; set that, or leave it out"
            )
    elif decoding == "top_k":
        raise ValueError(f"{key}decoding=top_k: expected {key}top_k, the number of labels a level; set {key}top_k=1")


def per_level(key: str, threshold: float | Sequence[float], num_levels: int) -> tuple[float, ...]:
    """Return one threshold for each level.

    Args:
        key: name of the setting in error messages.
        threshold: a number for all levels, or a sequence with one a level.
        num_levels: number of levels of the taxonomy.

    Raises:
        ValueError: another number of thresholds than levels, or one outside of [0, 1].
    """
    if isinstance(threshold, str):  # a sequence, too, of characters
        raise ValueError(
            f"{key}={threshold!r}: expected a number, or a list of numbers, not a text; leave out the quotes"
        )
    thresholds = tuple(threshold) if isinstance(threshold, Sequence) else (threshold,) * num_levels
    if len(thresholds) != num_levels:
        raise ValueError(f"{key}={threshold}: expected a number, or {num_levels} numbers, one a level of the taxonomy")
    for value in thresholds:
        check_range(key, value, 0, 1)
    return thresholds


def per_node(values: Sequence[float], level_sizes: Sequence[int], device: torch.device) -> Tensor:
    """Repeat the value of each level for all of its nodes: float32 ``[V]`` of ``D`` values."""
    sizes = torch.tensor(level_sizes, device=device)
    return torch.tensor(values, dtype=torch.float32, device=device).repeat_interleave(
        sizes, output_size=sum(level_sizes)
    )


def with_end(logits: Tensor) -> Tensor:
    """Append the logit 0 of "the path has ended" to the logits of a level: float32 ``[..., V_level + 1]``."""
    return F.pad(logits.float(), (0, 1))
