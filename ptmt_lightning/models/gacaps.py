"""GACaps: graph attention over representations of labels, then capsules with dynamic routing (Bang et al. 2023).

Shape legend: ``B`` documents, ``V`` nodes.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from ptmt_lightning.losses import LabelLoss, MeanBCE
from ptmt_lightning.models.encoder import TextBatch, TextClassifier
from ptmt_lightning.models.networks.gacaps import GACapsNetwork
from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.utils.checks import check_range


class GACaps(GACapsNetwork, TextClassifier):
    """Represents labels by a convolution over the text, relates them by graph attention, and routes them to capsules.

    Dropout before a maximum makes votes longer in training than in evaluation. As published, each validation begins by
    measuring the ratio on its first batch, by which votes are then scaled (``capsules.vote_scale``).

    Defects of the published code that are not reproduced: it freezes and thaws the encoder on alternate epochs; it
    stops routing on a criterion of the whole batch, so that a prediction depends on the rest of its batch; and it
    measures the scale once more on the first batch of the test, where here the one of the best checkpoint's validation
    is kept, so that the saved model predicts what the test did.

    Args:
        num_features: size of the representation of a label.
        capsule_size: size of the capsule of a node.
        hierarchy_penalty: weight of the gaps between the probabilities of a parent and its most probable child.
        frozen_epochs: number of first epochs in which the encoder is not trained.
        prune: drop predicted nodes below level 1 without a predicted parent.
        shared: further settings of all systems, see :class:`~ptmt_lightning.models.base.HTCModel`.
    """

    system = "gacaps"

    def __init__(
        self,
        *,
        num_features: int = 100,
        capsule_size: int = 32,
        hierarchy_penalty: float = 1e-3,
        frozen_epochs: int = 2,
        prune: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(prune=prune, **shared)
        check_range("model.num_features", num_features, 1, integer=True)
        check_range("model.capsule_size", capsule_size, 1, integer=True)
        check_range("model.hierarchy_penalty", hierarchy_penalty, 0)
        check_range("model.frozen_epochs", frozen_epochs, 0, integer=True)
        self.hierarchy_penalty, self.frozen_epochs = hierarchy_penalty, frozen_epochs
        self.add_layers(num_features=num_features, capsule_size=capsule_size)

    @staticmethod
    def published_loss() -> LabelLoss:
        """Return the focal binary cross-entropy, gamma 2, times 4."""
        return MeanBCE(gamma=2, weight=4)

    @staticmethod
    def published_optimizer() -> LinearAdamW:
        """Return AdamW with linear decay; the published schedule divides the rate by 10 after 5 epochs without gain."""
        return LinearAdamW(learning_rate=5e-5, new_rate_factor=2, weight_decay=0, warmup_ratio=0)

    def on_after_backward(self) -> None:
        """Drop the encoder's gradients in the first ``frozen_epochs`` epochs."""
        # requires_grad=False would not do: distributed training expects the same gradients at every step.
        if self.current_epoch < self.frozen_epochs:
            self.backbone.zero_grad(set_to_none=True)

    def on_validation_batch_start(self, batch: TextBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure the scale of votes by the first batch of a validation, as long as the model is trained."""
        # A training may end before its first validation; the one that follows then measures.
        if batch_idx == 0 and (self.trainer.state.fn == TrainerFn.FITTING or self.capsules.vote_scale == 1):
            self.measure_vote_scale(batch)

    def measure_vote_scale(self, batch: TextBatch) -> None:
        """Set the scale of votes to the ratio of their norms over a batch, with dropout to without it."""
        torch.manual_seed(self.seed)  # what is drawn afterwards is seeded anew, see on_train_batch_start
        with torch.no_grad():
            evaluated = self.capsules.votes(self.label_representations(batch)).float().norm()
            self.train()
            trained = self.capsules.votes(self.label_representations(batch)).float().norm()
            self.eval()
        if trained > 0 and evaluated > 0:
            self.capsules.vote_scale.copy_(trained / evaluated)

    def on_validation_epoch_end(self) -> None:
        """Give all ranks the scale of the first, which is saved, and log the metrics of the validation."""
        scale = self.trainer.strategy.broadcast(self.capsules.vote_scale.cpu())
        self.capsules.vote_scale.copy_(scale)
        super().on_validation_epoch_end()

    def loss_terms(self, batch: TextBatch) -> dict[str, Tensor]:
        """Return ``loss`` and its terms: ``label``, and the unweighted penalty ``gaps``."""
        logits_BV = self(batch)
        label = self.mean_label_loss(logits_BV, batch.targets)
        # Not self.probabilities: coherent ones would hide gaps.
        probabilities_BV = self.rule.decision.probabilities(logits_BV, self.taxonomy.level_sizes)
        gaps = child_gaps(probabilities_BV, self.edges)
        return {"loss": label + self.hierarchy_penalty * gaps, "label": label, "gaps": gaps}

    def settings(self) -> dict[str, Any]:
        """Return the settings that are needed to rebuild the saved system, as plain types."""
        return super().settings() | {"num_features": self.num_features, "capsule_size": self.capsule_size}


def child_gaps(probabilities: Tensor, edges: Tensor) -> Tensor:
    """Return the gaps between the probabilities of parents and their most probable child, summed over parents.

    Gaps up to 0.01 do not count. The sum is averaged over documents.

    Args:
        probabilities: ``[B, V]``.
        edges: int64 ``[2, E]``, parents and children.
    """
    parents, children = edges
    highest_BV = probabilities.new_full(probabilities.shape, -torch.inf).scatter_reduce(
        1, parents.expand(len(probabilities), -1), probabilities[:, children], "amax"
    )
    has_child = highest_BV.isfinite()
    gaps_BV = torch.where(has_child, probabilities - highest_BV.masked_fill(~has_child, 0.0), 0.0).abs()
    return (gaps_BV * (gaps_BV > 0.01)).sum() / len(probabilities)
