"""Cross-entropy over siblings with adjusted logits (Plaud et al. 2024, "Revisiting hierarchical text classification").

Shape legend: ``B`` documents, ``V`` nodes, ``D`` levels, ``E`` edges with those from the root, ``G`` parents.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ptmt_lightning.decisions import DECISIONS, Decision
from ptmt_lightning.losses import LabelLoss, level_sums
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.siblings import Siblings
from ptmt_lightning.utils.checks import check_range


class ConditionalCrossEntropy(LabelLoss):
    """Cross-entropy over the children of each true parent and "the path has ended", for data with one path a document.

    In training ``tau`` times the log of how often a label occurs under its parent is added to its score, so that rare
    siblings have to score as high as frequent ones; in prediction it is not (Menon et al. 2021). Counts are one higher
    than they are, as no logarithm is of 0. In a DAG, a true node with several true parents has the mean of the losses
    under these.

    Args:
        tau: weight of the log prior; 0 for plain cross-entropy.
        class_weights: factor of the loss where a label is the true one; see :class:`~ptmt_lightning.losses.LabelLoss`.
    """

    decision = DECISIONS["conditional_softmax"]
    siblings: Siblings
    shift: Tensor  # [E], added to scores in training
    end_shift: Tensor  # [G]
    end_level: Tensor  # int64 [G], the level below the parent, counted from 0

    def __init__(self, *, tau: float = 1.0, class_weights: str | None = None) -> None:
        super().__init__(class_weights=class_weights)
        check_range("loss.tau", tau, 0)
        self.tau = tau

    def connect(self, taxonomy: Taxonomy) -> Decision:
        """Take over the taxonomy of the nodes, and return the decision for their scores."""
        self.siblings = Siblings(taxonomy)
        levels_G = [0 if parent == 0 else taxonomy.levels[parent - 1] for parent in self.siblings.group_parent.tolist()]
        self.register_buffer("end_level", torch.tensor(levels_G), persistent=False)
        self.register_buffer("shift", torch.zeros(len(self.siblings.child)), persistent=False)
        self.register_buffer("end_shift", torch.zeros(len(levels_G)), persistent=False)
        return super().connect(taxonomy)

    def count(self, counts: Sequence[int], num_documents: int) -> None:
        """Take over how many training documents each node and all together have."""
        found = self.siblings
        nodes_V = torch.tensor([num_documents, *counts], dtype=torch.float32)
        counts_E = nodes_V[found.child + 1]
        below_G = torch.zeros(len(found.group_parent)).scatter_add(0, found.group, counts_E)
        ended_G = (nodes_V[found.group_parent] - below_G).clamp_min(0)
        size_G = torch.bincount(found.group) + 1
        total_G = below_G + ended_G + size_G
        self.shift = self.tau * ((counts_E + 1) / total_G[found.group]).log()
        self.end_shift = self.tau * ((ended_G + 1) / total_G).log()

    def forward(self, logits: Tensor, targets: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Return the loss of each document and level, ``[B, D]``, of logits and targets ``[B, V]``."""
        found = self.siblings
        log_BE, log_end_BG = found.log_conditionals(logits, self.shift, self.end_shift)
        true_B1V = F.pad(targets.bool(), (1, 0), value=True)  # the root is true
        on_path_BE = (true_B1V[:, found.parent] & true_B1V[:, found.child + 1]).float()
        child_BE = found.child.expand_as(on_path_BE)
        num_parents_BV = torch.zeros_like(logits, dtype=torch.float32).scatter_add(1, child_BE, on_path_BE)
        shares_BE = on_path_BE / num_parents_BV.gather(1, child_BE).clamp_min(1)
        loss_BV = torch.zeros_like(num_parents_BV).scatter_add(1, child_BE, -log_BE * shares_BE) * self.node_weights
        goes_on_BG = torch.zeros_like(log_end_BG).scatter_add(1, found.group.expand_as(on_path_BE), on_path_BE)
        ends_BG = true_B1V[:, found.group_parent] & (goes_on_BG == 0)
        levels_BG = self.end_level.expand_as(log_end_BG)
        return level_sums(loss_BV, level_sizes).scatter_add(1, levels_BG, -log_end_BG * ends_BG)
