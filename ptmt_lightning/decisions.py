"""What the scores of labels mean: their probabilities, the labels that these predict, and where scores start.

A loss names the decision that its scores are trained for; a saved model names it, too, and is used without its loss.

Shape legend: ``B`` documents, ``V`` nodes (ordered by level), ``D`` levels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor


class Decision(ABC):
    """Turns scores into probabilities, and probabilities into predicted labels.

    Attributes:
        name: stands for the decision in the folder of a saved model.
        single_label: whether at most one label a level is expected and predicted, without a threshold.
    """

    name: ClassVar[str]
    single_label: ClassVar[bool]

    @abstractmethod
    def probabilities(self, logits: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Return float32 probabilities ``[B, V]`` of scores ``[B, V]``."""

    @abstractmethod
    def predict(self, probabilities: Tensor, level_sizes: Sequence[int], thresholds: Sequence[float]) -> Tensor:
        """Return which nodes are predicted, bool ``[B, V]``, given ``D`` thresholds."""

    @abstractmethod
    def initial_logits(self, level_sizes: Sequence[int]) -> Tensor:
        """Return where the biases of scores start, float32 ``[V]``: as if each level had one true label on average."""


class Sigmoid(Decision):
    """Decides for each label by itself: any number of labels a level, those above the threshold of their level."""

    name = "sigmoid"
    single_label = False

    def probabilities(self, logits: Tensor, level_sizes: Sequence[int]) -> Tensor:
        return logits.float().sigmoid()

    def predict(self, probabilities: Tensor, level_sizes: Sequence[int], thresholds: Sequence[float]) -> Tensor:
        return probabilities > per_node(thresholds, level_sizes, probabilities.device)

    def initial_logits(self, level_sizes: Sequence[int]) -> Tensor:
        """Return the logarithms of one over the sizes of levels.

        At 0 all labels would start at 1/2, and the first steps would do nothing but push them down.
        """
        return per_node([-math.log(size) for size in level_sizes], level_sizes, torch.device("cpu"))


class LevelSoftmax(Decision):
    """Decides among the labels of a level and "the path has ended", whose logit is fixed at 0: at most one label each.

    Without the end a path that ends early would have no target below its end, and the model no way to predict
    nothing there (end of section 2.2).
    """

    name = "level_softmax"
    single_label = True

    def probabilities(self, logits: Tensor, level_sizes: Sequence[int]) -> Tensor:
        levels = logits.split(list(level_sizes), dim=-1)
        return torch.cat([with_end(level).softmax(dim=-1)[..., :-1] for level in levels], dim=-1)

    def predict(self, probabilities: Tensor, level_sizes: Sequence[int], thresholds: Sequence[float]) -> Tensor:
        """Return the most probable label of each level, none where the end is more probable; thresholds are ignored."""
        chosen = []
        for level in probabilities.split(list(level_sizes), dim=-1):
            best, index = level.max(dim=-1, keepdim=True)
            ended = 1 - level.sum(dim=-1, keepdim=True)
            chosen.append(torch.zeros_like(level, dtype=torch.bool).scatter_(-1, index, best > ended))
        return torch.cat(chosen, dim=-1)

    def initial_logits(self, level_sizes: Sequence[int]) -> Tensor:
        """Return zeros: the softmax shares one among the labels of a level and its end."""
        return torch.zeros(sum(level_sizes))


DECISIONS: dict[str, Decision] = {decision.name: decision for decision in (Sigmoid(), LevelSoftmax())}


def per_node(values: Sequence[float], level_sizes: Sequence[int], device: torch.device) -> Tensor:
    """Repeat one value a level for each of the level's nodes: float32 ``[V]``."""
    sizes = torch.tensor(level_sizes, device=device)
    return torch.tensor(values, dtype=torch.float32, device=device).repeat_interleave(
        sizes, output_size=sum(level_sizes)
    )


def with_end(logits: Tensor) -> Tensor:
    """Append the logit of "the path has ended", 0, to the float32 logits of a level: ``[B, V_level + 1]``."""
    return F.pad(logits.float(), (0, 1))
