"""HPT: one prompt and one slot a level, prompts that a graph tells of the labels (Wang et al. 2022).

Shape legend: ``B`` documents, ``L`` sequence length of the text, ``V`` nodes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ptmt_lightning.backbones import name_embeddings
from ptmt_lightning.backbones.attention import gather_positions
from ptmt_lightning.losses import ZMLCE, LabelLoss, masked_lm
from ptmt_lightning.models.encoder import TextBatch, TextClassifier
from ptmt_lightning.models.networks.hpt import HPTNetwork
from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.utils.checks import check_range

_MLM_PROBABILITY = 0.15  # as in BERT


class HPT(HPTNetwork, TextClassifier):
    """Predicts the labels of each level at a slot beside the level's prompt, and masked text tokens in training.

    The nearest relative of PTMT: its prompts are one a level and come from a graph over labels and prompts, and its
    loss compares the labels of a level with zero.

    Edges of the graph go both ways, as the publication has them. In the published code messages go from parents and
    prompts to labels alone: no prompt hears of a label, and the hierarchy changes no score. With a single layer, as
    published, a prompt hears of the labels of its own level; with two, of their parents and children.

    Biases of labels start where all systems here start, at one label a level; published are small random ones. Labels
    are no wrong answers for masked text tokens here.

    Args:
        num_graph_layers: number of layers of graph attention.
        mlm_weight: weight of the masked-LM loss beside the label loss; with 0 no text token is masked.
        prune: drop predicted nodes below level 1 without a predicted parent.
        shared: settings of all systems, see :class:`~ptmt_lightning.models.base.HTCModel`.

    Raises:
        ValueError: a backbone that is no encoder, or a setting out of range.
    """

    system = "hpt"
    uses_transform = True

    def __init__(
        self, *, num_graph_layers: int = 1, mlm_weight: float = 1.0, prune: bool = False, **shared: Any
    ) -> None:
        check_range("model.num_graph_layers", num_graph_layers, 1, self.sizes["num_graph_layers"], integer=True)
        check_range("model.mlm_weight", mlm_weight, 0)
        super().__init__(scores_tokens=mlm_weight > 0, prune=prune, **shared)
        self.mlm_weight = mlm_weight
        self.add_layers(num_graph_layers=num_graph_layers)
        self._initial_rows_VE = name_embeddings(self.backbone, self.tokenizer, self.taxonomy.words(), reduction="mean")
        with torch.no_grad():
            self.label_rows.copy_(self._initial_rows_VE)
            self.prompt_rows.copy_(self.backbone.random_rows(len(self.prompt_rows)))
            self.slot_row.copy_(self.backbone.token_embeddings[self.tokenizer.mask_token_id])
            self.label_bias.copy_(self.rule.decision.initial_logits(self.taxonomy.level_sizes))

    @staticmethod
    def published_loss() -> LabelLoss:
        """Return the zero-bounded loss of the publication."""
        return ZMLCE()

    @staticmethod
    def published_optimizer() -> LinearAdamW:
        """Return Adam with one constant rate."""
        return LinearAdamW(learning_rate=3e-5, new_rate_factor=1, weight_decay=0, warmup_ratio=0, schedule="constant")

    def loss_terms(self, batch: TextBatch) -> dict[str, Tensor]:
        """Return ``loss`` and its terms: the label loss, averaged over documents and levels, and the masked-LM loss."""
        is_target_BL = self._drawn(batch)
        input_ids = self._masked(batch.input_ids, is_target_BL) if self.mlm_weight > 0 else batch.input_ids
        filled = self.fill(input_ids, batch.attention_mask)
        everywhere = torch.arange(filled.token_states.shape[1], device=input_ids.device).expand(len(input_ids), -1)
        states = self.backbone.states(input_ids, filled.attention_mask, everywhere, filled.token_states)
        logits_BV = self.slot_logits(self.backbone.transform(gather_positions(states, filled.slots)))
        terms = {"label": self.label_losses(logits_BV, batch.targets).mean()}
        loss = terms["label"]
        if self.mlm_weight > 0:
            text_states = states[:, : input_ids.shape[1]][is_target_BL]
            scores = self.backbone.token_logits(self.backbone.transform(text_states))
            terms["mlm"] = masked_lm(scores, batch.input_ids[is_target_BL])
            loss = loss + self.mlm_weight * terms["mlm"]
        return {"loss": loss, **terms}

    def _drawn(self, batch: TextBatch) -> Tensor:
        """Draw the text tokens that are to be predicted, bool ``[B, L]``; none are special tokens."""
        places = torch.arange(batch.input_ids.shape[1], device=batch.input_ids.device)
        is_text = (places > 0) & (places < batch.attention_mask.sum(dim=1, keepdim=True) - 1)
        return is_text & (torch.rand(is_text.shape, device=is_text.device) < _MLM_PROBABILITY)

    def _masked(self, input_ids: Tensor, is_target_BL: Tensor) -> Tensor:
        """Return texts whose targets are masked as in BERT: of ten eight by ``[MASK]``, one by any token, one not."""
        draw = torch.rand(input_ids.shape, device=input_ids.device)
        others = torch.randint_like(input_ids, len(self.backbone.token_embeddings))
        masked = input_ids.masked_fill(is_target_BL & (draw < 0.8), self.tokenizer.mask_token_id)
        return torch.where(is_target_BL & (draw >= 0.9), others, masked)

    def settings(self) -> dict[str, Any]:
        """Return the settings that are needed to rebuild the saved system, as plain types."""
        return super().settings() | {"num_graph_layers": self.num_graph_layers}

    def label_embeddings(self) -> tuple[Tensor, Tensor]:
        """Return the embeddings of nodes before training and now, ``[V, E]`` each on the CPU."""
        return self._initial_rows_VE, self.label_rows.detach().cpu()
