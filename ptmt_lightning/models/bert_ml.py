"""BERT + ML: a flat head on the last layers' ``[CLS]`` with the MATCH loss (Zangari et al. 2024; Zhang et al. 2021).

Shape legend: ``B`` documents, ``V`` nodes, ``E`` edges between nodes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch import distributed as dist

from ptmt_lightning.models.bert import BERTClassifier
from ptmt_lightning.models.encoder import TextBatch
from ptmt_lightning.utils.checks import check_range


class BERTML(BERTClassifier):
    """Penalties for a child that is more probable than its parent, and for parent and child with unlike weights.

    The published code leaves dropout on while it evaluates; this one does not.

    Args:
        output_penalty: weight of the probabilities' gaps, summed over the documents of a step and over edges.
        weight_penalty: weight of half the squared distances of the head's weights, summed over edges.
        settings: see :class:`~ptmt_lightning.models.bert.BERTClassifier`.
    """

    system = "bert_ml"
    edges: Tensor

    def __init__(self, *, output_penalty: float, weight_penalty: float, **settings: Any) -> None:
        super().__init__(**settings)
        check_range("model.output_penalty", output_penalty, 0)
        check_range("model.weight_penalty", weight_penalty, 0)
        self.output_penalty, self.weight_penalty = output_penalty, weight_penalty
        self.register_buffer("edges", self.taxonomy.edge_index(), persistent=False)

    def loss_terms(self, batch: TextBatch) -> dict[str, Tensor]:
        logits_BV = self(batch)
        label = self.mean_label_loss(logits_BV, batch.targets)
        own_BV = self.decision.probabilities(logits_BV, self.taxonomy.level_sizes)  # coherent ones have no gaps
        gaps, distances = match_penalties(own_BV, self.head.weight, self.edges)
        gaps = gaps * (dist.get_world_size() if dist.is_initialized() else 1)  # gradients are averaged over ranks
        loss = label + self.output_penalty * gaps + self.weight_penalty * distances
        return {"loss": loss, "label": label, "gaps": gaps, "distances": distances}


def match_penalties(probabilities: Tensor, weight: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """The two sums of the MATCH loss.

    Args:
        probabilities: ``[B, V]``.
        weight: of the head, ``[V, H]``.
        edges: ``[2, E]``, parents and children.

    Returns:
        Sum of ``max(p_child - p_parent, 0)``, and half the sum of ``|w_parent - w_child|^2``.
    """
    parents, children = edges
    gaps = (probabilities[:, children] - probabilities[:, parents]).relu().sum()
    distances = (weight[parents] - weight[children]).square().sum() / 2
    return gaps, distances
