"""What all systems share that read ``[CLS] text [SEP]``: their batches, and the base class of their layers.

Shape legend: ``B`` documents, ``L`` sequence length, ``V`` nodes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from ptmt_lightning.data.document import Example
from ptmt_lightning.taxonomy import Taxonomy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ptmt_lightning.backbones import Backbone

NUM_SPECIAL = 2  # special tokens: [CLS] and [SEP]


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
        texts = [example.input_ids[: self.max_length - NUM_SPECIAL] for example in examples]
        lengths = np.array([len(text) for text in texts]) + NUM_SPECIAL
        width = min(-(-int(lengths.max()) // self.multiple) * self.multiple, self.max_length)
        input_ids = np.full((len(texts), width), self.pad_id, dtype=np.int64)
        targets = np.zeros((len(texts), self.num_nodes), dtype=bool)
        for row, (example, text) in enumerate(zip(examples, texts, strict=True)):
            input_ids[row, : len(text) + NUM_SPECIAL] = [self.cls_id, *text, self.sep_id]
            targets[row, example.nodes] = True
        attention = np.arange(width) < lengths[:, None]
        return TextBatch(
            rows=torch.tensor([example.row for example in examples]),
            input_ids=torch.from_numpy(input_ids),
            attention_mask=torch.from_numpy(attention.astype(np.int64)),
            targets=torch.from_numpy(targets),
            num_text_tokens=int((lengths - NUM_SPECIAL).sum()),
        )


class TextNetwork(nn.Module):
    """Base class of the layers that score nodes with an encoder, the same in training and with a saved model.

    A saved model is an instance of such a class (:meth:`assemble`); the class that trains it derives from it, too, so
    that parameters have the same names in checkpoints, in saved folders and here.

    Attributes:
        sizes: highest value of each saved setting that :meth:`add_layers` takes.
        choices: values of each other one, of which the first stands where a saved folder names none.
        model_types: types of backbones that it can read with; empty for all encoders.
        layout: version of the layers; a change that gives saved parameters another meaning raises it.
    """

    sizes: ClassVar[dict[str, int]] = {}
    choices: ClassVar[dict[str, tuple[str, ...]]] = {}
    model_types: ClassVar[tuple[str, ...]] = ()
    layout: ClassVar[int] = 1
    backbone: Backbone
    tokenizer: PreTrainedTokenizerBase
    taxonomy: Taxonomy

    @classmethod
    def assemble(cls, backbone: Backbone, tokenizer: PreTrainedTokenizerBase, taxonomy: Taxonomy, **sizes: Any) -> Self:
        """Return the layers over a backbone, with weights that are to be loaded.

        Args:
            backbone: reads the texts.
            tokenizer: of the backbone.
            taxonomy: hierarchy of the labels.
            sizes: the settings that ``sizes`` and ``choices`` name.
        """
        network = cls()
        network.backbone, network.tokenizer, network.taxonomy = backbone, tokenizer, taxonomy
        network.add_layers(**sizes)
        return network

    @staticmethod
    def num_reserved(taxonomy: Taxonomy) -> int:
        """Return the number of positions behind a text that the layers need."""
        return 0

    @abstractmethod
    def add_layers(self, *_: Any, **sizes: Any) -> None:
        """Add the layers over the backbone, whose attribute is set already.

        Raises:
            ValueError: a size that does not go with the backbone.
        """

    @abstractmethod
    def forward(self, batch: TextBatch) -> Tensor:
        """Return the scores (logits) of all nodes, ``[B, V]``."""
