"""The interface of saved systems, by which models are used whatever their system is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from ptmt_lightning.data.document import Example
from ptmt_lightning.taxonomy import Taxonomy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ptmt_lightning.backbones import Backbone

Collate = Callable[[Sequence[Example]], Any]  # makes a batch, a named tuple


class SavedSystem(ABC):
    """A saved system, as its settings describe it: how texts become batches, and which layers score these.

    Attributes:
        inputs: the tensors of a batch that the layers read, and which dimensions of each differ between batches.
        max_length: longest sequence, in tokens.
    """

    inputs: ClassVar[Mapping[str, Sequence[int]]]
    max_length: int

    @property
    @abstractmethod
    def text_budget(self) -> int:
        """Highest number of tokens of a text; longer texts are cut."""

    @property
    def kept_from_export(self) -> str | None:
        """What keeps the layers from being exported, as the end of "the model is ..."; None if nothing does."""
        return None

    @abstractmethod
    def fits(self, taxonomy: Taxonomy) -> bool:
        """Return whether the settings are for a taxonomy of such levels."""

    @abstractmethod
    def check_tokenizer(self, folder: Path, tokenizer: PreTrainedTokenizerBase, taxonomy: Taxonomy) -> None:
        """Refuse a tokenizer that is not the one that the model was saved with.

        Raises:
            ValueError: says what differs.
        """

    @abstractmethod
    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Collate:
        """Return a function that makes batches of tokenised texts."""

    @abstractmethod
    def network(
        self, folder: Path, backbone: Backbone, tokenizer: PreTrainedTokenizerBase, taxonomy: Taxonomy
    ) -> nn.Module:
        """Return the trained layers: they compute the scores (logits) ``[B, V]`` of a batch.

        Args:
            folder: of the saved model.
            backbone: that the folder holds.
            tokenizer: that the folder holds.
            taxonomy: hierarchy of the labels.

        Raises:
            ValueError: a file of the folder does not fit the model.
        """
