"""The base of systems that read ``[CLS] text [SEP]`` and put a head of their own on an encoder."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ptmt_lightning.backbones.learned import tell_encoder_only
from ptmt_lightning.models.base import HTCModel
from ptmt_lightning.models.networks.text import NUM_SPECIAL, TextCollator, TextNetwork
from ptmt_lightning.models.networks.text import TextBatch as TextBatch  # for systems that derive from this one


class TextClassifier(TextNetwork, HTCModel):
    """Base class of systems that put a head of their own on an encoder.

    Args:
        scores_tokens: whether the backbone's own tokens are scored in training, as in a masked-LM loss.
        shared: settings of all systems, see :class:`~ptmt_lightning.models.base.HTCModel`.

    Raises:
        ValueError: a backbone that is no encoder, or no room for a text within ``max_length``.
    """

    uses_transform = False  # whether the transform of the masked-LM head is used, and therefore trained

    def __init__(self, *, scores_tokens: bool = False, **shared: Any) -> None:
        super().__init__(**shared)
        if self.backbone.family.form != "encoder":
            raise ValueError(
                f"model={self.system} reads the states of an encoder, and model type "
                f"{self.backbone.model.config.model_type!r} is of form {self.backbone.family.form}; set backbone to "
                "an encoder, or model=ptmt"
            )
        if self.max_text_length < NUM_SPECIAL + 1:
            raise ValueError(
                f"backbone.max_length={self.max_length} leaves no room for a text; set it to "
                f"{self.max_length - self.max_text_length + NUM_SPECIAL + 1} or more"
            )
        if self.backbone.learned is not None:
            tell_encoder_only(self.backbone.learned.source)
        if not scores_tokens:
            self.backbone.freeze_output()
        if not self.uses_transform:
            for parameter in self.backbone.head_parameters():
                parameter.requires_grad_(False)

    @property
    def max_text_length(self) -> int:
        """Longest sequence ``[CLS] text [SEP]``, in tokens."""
        return self.max_length - self.num_reserved(self.taxonomy)

    @property
    def max_text_tokens(self) -> int:
        """Number of tokens at which texts are cut."""
        return self.max_text_length - NUM_SPECIAL

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
        return {"max_length": self.max_length, "layout": self.layout}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write down the version of the layers, besides what all systems do."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["layout"] = self.layout

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse weights of an earlier version of the layers, besides what all systems refuse.

        Raises:
            ValueError: says what has changed.
        """
        super().on_load_checkpoint(checkpoint)
        if checkpoint.get("layout", 1) != self.layout:
            raise ValueError(
                f"the checkpoint is of an earlier version of model={self.system}, whose layers were others; go on with "
                "the version that began the run, or start the run anew"
            )

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return all parameters beside the backbone's, under ``head``."""
        return {"head": {name: value for name, value in self.state_dict().items() if not name.startswith("backbone.")}}
