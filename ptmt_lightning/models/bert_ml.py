"""BERT + ML: BERT with the penalties of MATCH (Zangari et al. 2024; MATCH: Zhang et al. 2021).

Shape legend: ``B`` documents, ``V`` nodes, ``E`` edges between nodes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch import distributed as dist

from ptmt_lightning.losses import LabelLoss, MeanBCE
from ptmt_lightning.models.bert import BERTClassifier
from ptmt_lightning.models.encoder import TextBatch
from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.utils.checks import check_range


class BERTML(BERTClassifier):
    """A flat classifier with penalties for a child more probable than its parent, and for unlike weights of the two.

    The published code leaves dropout on while it evaluates; this one does not.

    Args:
        output_penalty: weight of the excess of a child's probability over its parent's, summed over the documents of a
            step and over edges.
        weight_penalty: weight of half the squared distance between the head's weights of parent and child, summed over
            edges.
        num_layers: see :class:`~ptmt_lightning.models.bert.BERTClassifier`.
        prune: drop predicted nodes below level 1 without a predicted parent.
        settings: further settings of :class:`~ptmt_lightning.models.bert.BERTClassifier`.
    """

    system = "bert_ml"
    edges: Tensor

    def __init__(
        self,
        *,
        output_penalty: float = 1e-8,
        weight_penalty: float = 1e-10,
        num_layers: int = 3,
        prune: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(num_layers=num_layers, prune=prune, **settings)
        check_range("model.output_penalty", output_penalty, 0)
        check_range("model.weight_penalty", weight_penalty, 0)
        self.output_penalty, self.weight_penalty = output_penalty, weight_penalty
        self.register_buffer("edges", self.taxonomy.edge_index(), persistent=False)

    @staticmethod
    def published_loss() -> LabelLoss:
        """Return binary cross-entropy averaged over all labels."""
        return MeanBCE()

    @staticmethod
    def published_optimizer() -> LinearAdamW:
        """Return AdamW at a constant rate."""
        return LinearAdamW(learning_rate=2e-5, new_rate_factor=1, warmup_ratio=0, schedule="constant")

    def loss_terms(self, batch: TextBatch) -> dict[str, Tensor]:
        """Return ``loss`` and its terms: ``label``, and the unweighted penalties ``gaps`` and ``distances``."""
        logits_BV = self(batch)
        label = self.mean_label_loss(logits_BV, batch.targets)
        # Not self.probabilities: coherent ones would have no gaps.
        probabilities_BV = self.rule.decision.probabilities(logits_BV, self.taxonomy.level_sizes)
        gaps, distances = match_penalties(probabilities_BV, self.head.weight, self.edges)
        gaps = gaps * (dist.get_world_size() if dist.is_initialized() else 1)  # gradients are averaged over ranks
        loss = label + self.output_penalty * gaps + self.weight_penalty * distances
        return {"loss": loss, "label": label, "gaps": gaps, "distances": distances}


def match_penalties(probabilities: Tensor, weight: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two penalties of the MATCH loss (Zhang et al. 2021).

    Args:
        probabilities: ``[B, V]``.
        weight: weights of the linear head, ``[V, H]``.
        edges: int64 ``[2, E]``, parents and children.

    Returns:
        Sum of ``max(p_child - p_parent, 0)``, and half the sum of ``|w_parent - w_child|^2``.
    """
    parents, children = edges
    gaps = (probabilities[:, children] - probabilities[:, parents]).relu().sum()
    distances = (weight[parents] - weight[children]).square().sum() / 2
    return gaps, distances
