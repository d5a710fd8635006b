"""A plain multi-label head on ``[CLS]``: what the prompts have to beat.

Shape legend: ``B`` documents, ``L`` sequence length, ``V`` nodes, ``H`` hidden size.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

import ptmt_lightning
from ptmt_lightning.backbones import quiet_transformers
from ptmt_lightning.checks import check_range
from ptmt_lightning.data.cache import Example
from ptmt_lightning.models.classifier import HTCModel

_NUM_SPECIAL = 2  # [CLS] text [SEP]


class BERTBatch(NamedTuple):
    """One batch."""

    rows: Tensor  # int64 [B], rows of the split
    input_ids: Tensor  # int64 [B, L]
    attention_mask: Tensor  # int64 [B, L]
    targets: Tensor  # bool [B, V]
    num_text_tokens: int


class BERTCollator:
    """``[CLS] text [SEP]``, padded."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, max_length: int, num_nodes: int, multiple: int) -> None:
        self.cls_id, self.sep_id, self.pad_id = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
        self.max_length, self.num_nodes, self.multiple = max_length, num_nodes, multiple

    def __call__(self, examples: Sequence[Example]) -> BERTBatch:
        texts = [example.input_ids[: self.max_length - _NUM_SPECIAL] for example in examples]
        lengths = np.array([len(text) for text in texts]) + _NUM_SPECIAL
        width = min(-(-int(lengths.max()) // self.multiple) * self.multiple, self.max_length)
        input_ids = np.full((len(texts), width), self.pad_id, dtype=np.int64)
        targets = np.zeros((len(texts), self.num_nodes), dtype=bool)
        for row, (example, text) in enumerate(zip(examples, texts, strict=True)):
            input_ids[row, : len(text) + _NUM_SPECIAL] = [self.cls_id, *text, self.sep_id]
            targets[row, example.nodes] = True
        attention = np.arange(width) < lengths[:, None]
        return BERTBatch(
            rows=torch.tensor([example.row for example in examples]),
            input_ids=torch.from_numpy(input_ids),
            attention_mask=torch.from_numpy(attention.astype(np.int64)),
            targets=torch.from_numpy(targets),
            num_text_tokens=int((lengths - _NUM_SPECIAL).sum()),
        )


class BERTClassifier(HTCModel):
    """Dropout and one linear layer over the last state of ``[CLS]``.

    Args:
        dropout: before the linear layer.
        shared: see :class:`~ptmt_lightning.models.classifier.HTCModel`.
    """

    def __init__(self, *, dropout: float, **shared: Any) -> None:
        super().__init__(**shared)
        check_range("model.dropout", dropout, 0, 1, high_open=True)
        config = self.backbone.model.config
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(config.hidden_size, len(self.taxonomy))
        nn.init.normal_(self.head.weight, std=config.initializer_range)
        with torch.no_grad():
            self.head.bias.copy_(self.label_loss.initial_logits(self.taxonomy.level_sizes))

    def collator(self, *, training: bool, pad_to_multiple_of: int = 1) -> BERTCollator:
        return BERTCollator(
            self.tokenizer,
            max_length=self.max_length,
            num_nodes=len(self.taxonomy),
            multiple=pad_to_multiple_of,
        )

    def forward(self, batch: BERTBatch) -> Tensor:
        first = batch.input_ids.new_zeros(len(batch.input_ids), 1)
        states_B1H = self.backbone.states(batch.input_ids, batch.attention_mask, first)
        logits: Tensor = self.head(self.dropout(states_B1H[:, 0]))
        return logits

    def loss_terms(self, batch: BERTBatch) -> dict[str, Tensor]:
        return {"loss": self.label_losses(self(batch), batch.targets).sum(dim=-1).mean()}

    def save_pretrained(self, folder: Path) -> None:
        """A plain Transformers folder of the encoder, ``taxonomy.json``, ``head.safetensors`` and ``bert.json``."""
        with quiet_transformers():
            self.backbone.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.taxonomy.to_json(folder / "taxonomy.json")
        save_file(self.head.state_dict(), folder / "head.safetensors")
        settings = {
            "max_length": self.max_length,
            "thresholds": self.thresholds,
            "prune": self.prune,
            "coherent": self.coherent,
            "version": ptmt_lightning.__version__,
        }
        (folder / "bert.json").write_text(json.dumps(settings, indent=2))
