"""PTMTTaxoFormer: learnable prompt tokens, one mask a level, learnable label tokens (sections 2.1-2.3).

Shape legend: ``B`` documents, ``D`` levels, ``V`` nodes, ``K`` positions of interest, ``H`` hidden size,
``N`` masked text tokens in the batch.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

import ptmt_lightning
from ptmt_lightning.backbones import Backbone, quiet_transformers
from ptmt_lightning.checks import check_range
from ptmt_lightning.losses import count_l1, masked_lm, masked_mean
from ptmt_lightning.models.classifier import HTCModel
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.template import PTMTBatch, PTMTCollator, Template

LabelInit = Literal["label_name", "random"]


class PTMT(HTCModel):
    """Unmasks one ``[MASK]`` a level into label tokens, in one encoder pass.

    Args:
        num_prompt_tokens: m of section 2.1.
        alpha: share of the masked-LM loss in the total (Eq. 3).
        alpha_l1: weight of the count loss beside the label loss (Eq. 3).
        mlm_probability, p_label: see :class:`~ptmt_lightning.template.PTMTCollator`.
        label_init: label-token rows start as the mean of the name's word pieces, or at random.
        shared: what every system takes, see :class:`~ptmt_lightning.models.classifier.HTCModel`.
    """

    def __init__(
        self,
        *,
        num_prompt_tokens: int,
        alpha: float,
        alpha_l1: float,
        mlm_probability: float,
        p_label: float,
        label_init: LabelInit,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        check_range("model.alpha", alpha, 0, 1)
        check_range("model.alpha_l1", alpha_l1, 0)
        if label_init not in ("label_name", "random"):
            raise ValueError(f"model.label_init={label_init!r}: expected 'label_name' or 'random'")
        self.alpha, self.alpha_l1 = alpha, alpha_l1
        self.mlm_probability, self.p_label = mlm_probability, p_label
        rows = _new_rows(self.backbone, self.tokenizer, self.taxonomy, num_prompt_tokens, label_init)
        self.template = Template.add_to(
            self.tokenizer, self.taxonomy, num_prompt_tokens=num_prompt_tokens, max_length=self.max_length
        )
        self.backbone.add_token_rows(rows)

    def collator(self, *, training: bool, pad_to_multiple_of: int = 1) -> PTMTCollator:
        return PTMTCollator(
            self.template,
            mlm_probability=self.mlm_probability if training else 0.0,
            p_label=self.p_label if training else 1.0,
            seed=self.seed,
            pad_to_multiple_of=pad_to_multiple_of,
        )

    def forward(self, batch: PTMTBatch) -> Tensor:
        return self.label_logits(self.backbone(batch.input_ids, batch.attention_mask, batch.positions))

    def label_logits(self, states: Tensor) -> Tensor:
        """Scores ``[B, V]`` from states ``[B, K, H]``: slot i against the label tokens of level i (section A.4)."""
        first, size = self.template.first_label_id, len(self.taxonomy)
        embeddings_VH = self.backbone.token_embeddings[first : first + size]
        bias_V = self.backbone.output_bias[first : first + size]
        levels = [states[:, i] @ embeddings_VH[nodes].T for i, nodes in enumerate(self.taxonomy.level_slices)]
        return torch.cat(levels, dim=-1) + bias_V

    def loss_terms(self, batch: PTMTBatch) -> dict[str, Tensor]:
        """Eq. 3 and its terms; slots that show their answer do not count."""
        states_BKH = self.backbone(batch.input_ids, batch.attention_mask, batch.positions)
        logits_BV = self.label_logits(states_BKH)
        sizes = self.taxonomy.level_sizes
        label = masked_mean(self.label_loss(logits_BV, batch.targets, sizes), batch.slots)
        count = masked_mean(
            count_l1(self.label_loss.probabilities(logits_BV, sizes), batch.targets, sizes), batch.slots
        )
        loss = (1 - self.alpha) * (label + self.alpha_l1 * count)
        terms = {"label": label, "count_l1": count}
        if self.alpha > 0:
            states_NH = states_BKH.flatten(0, 1)[batch.mlm_index]
            terms["mlm"] = masked_lm(self.backbone.token_logits(states_NH), batch.mlm_ids)
            loss = loss + self.alpha * terms["mlm"]
        return {"loss": loss, **terms}

    def save_pretrained(self, folder: Path) -> None:
        """A folder for ``AutoModelForMaskedLM`` and ``AutoTokenizer``, with ``taxonomy.json`` and ``ptmt.json``."""
        with quiet_transformers():
            self.backbone.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.taxonomy.to_json(folder / "taxonomy.json")
        settings = {
            "template": asdict(self.template),
            "threshold": self.threshold,
            "prune": self.prune,
            "version": ptmt_lightning.__version__,
        }
        (folder / "ptmt.json").write_text(json.dumps(settings, indent=2))


def _new_rows(
    backbone: Backbone, tokenizer: PreTrainedTokenizerBase, taxonomy: Taxonomy, num_prompt_tokens: int, init: LabelInit
) -> Tensor:
    """Embeddings ``[m + V, H]`` of the tokens to come, drawn with the backbone's own spread where not from names."""
    old_TH = backbone.token_embeddings.detach()
    spread = backbone.model.config.initializer_range
    rows: Tensor = torch.randn(num_prompt_tokens + len(taxonomy), old_TH.shape[1]) * spread
    if init == "label_name":
        words = [re.sub(r"[\W_]+", " ", name) for name in taxonomy.names]
        pieces = tokenizer(words, add_special_tokens=False)["input_ids"]
        for node, ids in enumerate(pieces, start=num_prompt_tokens):
            if ids:
                rows[node] = old_TH[ids].mean(dim=0)
    return rows
