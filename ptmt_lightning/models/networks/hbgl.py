"""The layers of HBGL: labels are decoded level by level, with cached keys and values.

Shape legend: ``B`` documents, ``L`` sequence length of the text, ``S`` slots (levels and the end), ``V`` nodes,
``X`` nodes and the end (V + 1), ``P`` positions read before, ``H`` hidden size.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptmt_lightning.models.networks.text import TextBatch, TextNetwork
from ptmt_lightning.taxonomy import Taxonomy


class HBGLNetwork(TextNetwork):
    """Predicts the labels of a level from the text and the labels of the levels above, by embeddings of labels."""

    model_types = ("bert",)
    layout: ClassVar[int] = 2  # the first had no output bias, and no order of labels after the end
    label_rows: nn.Parameter  # [V, H]
    output_bias: nn.Parameter  # [X]

    @staticmethod
    def num_reserved(taxonomy: Taxonomy) -> int:
        """Return the number of slots, which follow a text: one a level, and one for the end."""
        return taxonomy.num_levels + 1

    def add_layers(self) -> None:
        """Add the embeddings of labels, and the biases of labels and the end."""
        self.label_rows = nn.Parameter(torch.empty(len(self.taxonomy), self.backbone.hidden_size))
        self.output_bias = nn.Parameter(torch.empty(len(self.taxonomy) + 1))

    @property
    def num_slots(self) -> int:
        """Number of slots: one a level, and one for the end."""
        return self.num_reserved(self.taxonomy)

    def _token(self, name: str) -> Tensor:
        """Return the embedding ``[H]`` of a special token: ``cls``, ``sep`` or ``mask``."""
        return self.backbone.token_embeddings[getattr(self.tokenizer, f"{name}_token_id")]

    def _contents(self, labels_BSX: Tensor) -> Tensor:
        """Return the contents of target slots ``[..., H]``: sums of their labels' embeddings, without gradients."""
        rows = torch.cat([self.label_rows.detach(), self._token("sep").detach()[None]])
        return labels_BSX.to(rows.dtype) @ rows

    def _embed_text(self, input_ids: Tensor) -> Tensor:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids)
        return self.backbone.embed(self.backbone.embed_tokens(input_ids), positions, torch.zeros_like(input_ids))

    def _embed_slots(self, contents: Tensor, positions: Tensor) -> Tensor:
        return self.backbone.embed(contents, positions, torch.ones_like(positions))

    def _scores(self, states: Tensor) -> Tensor:
        """Return the logits ``[..., X]`` of all labels and the end, for states ``[..., H]``."""
        rows = torch.cat([self.label_rows, self._token("sep")[None]])
        return self.backbone.transform(states) @ rows.T + self.output_bias

    def forward(self, batch: TextBatch) -> Tensor:
        """Return the highest logit of each label over the slots, ``[B, V]``.

        From a slot on at which the end is predicted, the probability of a label is multiplied by those that the path
        goes on after all. It is then below 1/2, so that the label is not predicted, but labels keep an order.
        """
        text_mask_BL = batch.attention_mask.bool()
        lengths_B = text_mask_BL.sum(dim=1)
        text = self._embed_text(batch.input_ids)
        _, past = self.backbone.attend(text, text_mask_BL[:, None].expand(-1, text.shape[1], -1))
        seen_BP = text_mask_BL
        num_documents = text.shape[0]  # len() of a tensor would fix it in an exported model
        pseudo_B1H = self._token("mask").expand(num_documents, 1, -1)
        best_BV = torch.full((num_documents, len(self.taxonomy)), -torch.inf, device=text.device)
        log_going_B = torch.zeros(num_documents, device=text.device)  # 0 up to the end
        labels_BX: Tensor | None = None
        for slot in range(self.num_slots):
            # Read the labels of the slot before, where there is one, and the [MASK] of this slot.
            new = [self._embed_slots(pseudo_B1H, lengths_B[:, None] + slot)]
            if labels_BX is not None:
                new.insert(0, self._embed_slots(self._contents(labels_BX[:, None]), lengths_B[:, None] + slot - 1))
            own = torch.ones(len(new), len(new), dtype=torch.bool, device=text.device).tril()
            seen = seen_BP[:, None].expand(-1, len(new), -1)
            mask = torch.cat([seen, own.expand(num_documents, -1, -1)], dim=-1)
            states, keys_values = self.backbone.attend(torch.cat(new, dim=1), mask, past)
            if labels_BX is not None:  # later slots attend to the labels, never to this slot's [MASK]
                past = [
                    (torch.cat([k, new_k[:, :, :1]], dim=2), torch.cat([v, new_v[:, :, :1]], dim=2))
                    for (k, v), (new_k, new_v) in zip(past, keys_values, strict=True)
                ]
                seen_BP = F.pad(seen_BP, (0, 1), value=True)
            scores_BX = self._scores(states[:, -1]).float()
            has_ended_B = (log_going_B < 0) | (scores_BX[:, -1] > 0)
            log_going_B = torch.where(has_ended_B, log_going_B + F.logsigmoid(-scores_BX[:, -1]), 0.0)
            log_p_BV = F.logsigmoid(scores_BX[:, :-1]) + log_going_B[:, None]
            reached_BV = torch.where(has_ended_B[:, None], _logit_of_log(log_p_BV), scores_BX[:, :-1])
            best_BV = torch.maximum(best_BV, reached_BV)
            labels_BX = F.pad(scores_BX[:, :-1] > 0, (0, 1))
        return best_BV


def _logit_of_log(log_p: Tensor) -> Tensor:
    """Return the logits of probabilities up to 1/2, from their logarithms."""
    return log_p - torch.log1p(-log_p.clamp_max(-0.5).exp())
