"""The base of systems that read ``[CLS] text [SEP]`` and put a head of their own on an encoder.

Shape legend: ``B`` documents, ``L`` sequence length, ``V`` nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ptmt_lightning.backbones.learned import tell_encoder_only
from ptmt_lightning.data.document import Example
from ptmt_lightning.models.base import HTCModel

_NUM_SPECIAL = 2  # special tokens: [CLS] and [SEP]


class TextBatch(NamedTuple):
    """One batch of padded sequences ``[CLS] text [SEP]``."""

    rows: Tensor  # int64 [B], row of each document in its split
    input_ids: Tensor  # int64 [B, L]
    attention_mask: Tensor  # int64 [B, L]
    targets: Tensor  # bool [B, V]
    num_text_tokens: int


class TextCollator:
    """Makes batches of padded sequences ``[CLS] text [SEP]`` from tokenised documents.

    Args:
        tokenizer: gives the ids of special tokens.
        max_length: longer sequences are cut to so many tokens.
        num_nodes: number of nodes of the taxonomy.
        multiple: sequences are padded to a multiple of this length.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, max_length: int, num_nodes: int, multiple: int) -> None:
        self.cls_id, self.sep_id, self.pad_id = tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
        self.max_length, self.num_nodes, self.multiple = max_length, num_nodes, multiple

    def __call__(self, examples: Sequence[Example]) -> TextBatch:
        """Return the batch of these documents, on the CPU."""
        texts = [example.input_ids[: self.max_length - _NUM_SPECIAL] for example in examples]
        lengths = np.array([len(text) for text in texts]) + _NUM_SPECIAL
        width = min(-(-int(lengths.max()) // self.multiple) * self.multiple, self.max_length)
        input_ids = np.full((len(texts), width), self.pad_id, dtype=np.int64)
        targets = np.zeros((len(texts), self.num_nodes), dtype=bool)
        for row, (example, text) in enumerate(zip(examples, texts, strict=True)):
            input_ids[row, : len(text) + _NUM_SPECIAL] = [self.cls_id, *text, self.sep_id]
            targets[row, example.nodes] = True
        attention = np.arange(width) < lengths[:, None]
        return TextBatch(
            rows=torch.tensor([example.row for example in examples]),
            input_ids=torch.from_numpy(input_ids),
            attention_mask=torch.from_numpy(attention.astype(np.int64)),
            targets=torch.from_numpy(targets),
            num_text_tokens=int((lengths - _NUM_SPECIAL).sum()),
        )


class TextClassifier(HTCModel):
    """Base class of systems that put a head of their own on an encoder.

    Args:
        shared: settings of all systems, see :class:`~ptmt_lightning.models.base.HTCModel`.

    Raises:
        ValueError: a backbone that is no encoder, or no room for a text within ``max_length``.
    """

    uses_transform = False  # whether the transform of the masked-LM head is used, and therefore trained

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)
        if self.backbone.family.form != "encoder":
            raise ValueError(
                f"model={self.system} reads the states of an encoder, and model type "
                f"{self.backbone.model.config.model_type!r} is of form {self.backbone.family.form}; set backbone to "
                "an encoder, or model=ptmt"
            )
        if self.max_text_length < _NUM_SPECIAL + 1:
            raise ValueError(
                f"backbone.max_length={self.max_length} leaves no room for a text; set it to "
                f"{self.max_length - self.max_text_length + _NUM_SPECIAL + 1} or more"
            )
        if self.backbone.learned is not None:
            tell_encoder_only(self.backbone.learned.source)
        self.backbone.freeze_output()
        if not self.uses_transform:
            for parameter in self.backbone.head_parameters():
                parameter.requires_grad_(False)

    @property
    def max_text_length(self) -> int:
        """Longest sequence ``[CLS] text [SEP]``, in tokens."""
        return self.max_length

    @property
    def max_text_tokens(self) -> int:
        """Number of tokens at which texts are cut."""
        return self.max_text_length - _NUM_SPECIAL

    def collator(self, *, training: bool, pad_to_multiple_of: int = 1) -> TextCollator:
        """Return the collator of this system, the same in training and evaluation."""
        return TextCollator(
            self.tokenizer,
            max_length=self.max_text_length,
            num_nodes=len(self.taxonomy),
            multiple=pad_to_multiple_of,
        )

    def settings(self) -> dict[str, Any]:
        """Return the settings that are needed to rebuild the saved system, as plain types."""
        return {"max_length": self.max_length}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return all parameters beside the backbone's, under ``head``."""
        return {"head": {name: value for name, value in self.state_dict().items() if not name.startswith("backbone.")}}
