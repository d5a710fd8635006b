"""The families of backbones: what form each has, where it keeps its head, and whether its layers are BERT's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

Form = Literal["encoder", "decoder", "encoder-decoder"]


@dataclass(frozen=True)
class Family:
    """What the backbone needs to know of a ``model_type``.

    Args:
        head_modules: of the head's transform, applied one after the other: dotted names within the model; "gelu" is
            the function.
        form: an encoder that fills masks, a decoder that continues its text, or both in a row.
        trained_length: longest sequence it was pretrained with, where its positions are relative and have no table.
        is_bert_like: embeddings, layers and attention have BERT's names and order.
        counts_positions_from_padding: position numbers start after the padding token's id, as in fairseq's models.
    """

    head_modules: tuple[str, ...] = ()
    form: Form = "encoder"
    is_bert_like: bool = False
    counts_positions_from_padding: bool = False
    trained_length: int | None = None

    def head(self, model: nn.Module) -> list[nn.Module]:
        """The modules of the head's transform."""
        return [model.get_submodule(name) for name in self.head_modules if name != "gelu"]

    def transform(self, model: Any, states: Tensor) -> Tensor:
        """What the head does with states before it compares them with token embeddings."""
        for name in self.head_modules:
            states = F.gelu(states) if name == "gelu" else model.get_submodule(name)(states)
        if getattr(model.config, "scale_decoder_outputs", False):  # T5, where its matrices are tied
            states = states * model.config.hidden_size**-0.5
        return states

    def max_positions(self, config: Any) -> int:
        """The longest sequence that the position table holds, or that the model was made for."""
        if self.trained_length is not None:
            return self.trained_length
        positions: int = config.max_position_embeddings
        return positions - (config.pad_token_id + 1 if self.counts_positions_from_padding else 0)


_BERT = ("cls.predictions.transform",)
_ROBERTA = ("lm_head.dense", "gelu", "lm_head.layer_norm")

FAMILIES = {
    "bert": Family(_BERT, is_bert_like=True),
    "roberta": Family(_ROBERTA, is_bert_like=True, counts_positions_from_padding=True),
    "xlm-roberta": Family(_ROBERTA, is_bert_like=True, counts_positions_from_padding=True),
    "camembert": Family(_ROBERTA, is_bert_like=True, counts_positions_from_padding=True),
    "electra": Family(("generator_predictions",), is_bert_like=True),
    "albert": Family(("predictions.dense", "predictions.activation", "predictions.LayerNorm")),
    "distilbert": Family(("vocab_transform", "activation", "vocab_layer_norm")),
    "mpnet": Family(_ROBERTA, counts_positions_from_padding=True),
    "deberta": Family(_BERT),
    "deberta-v2": Family(_BERT),
    "modernbert": Family(("head",)),
    "bart": Family(form="encoder-decoder"),
    "t5": Family(form="encoder-decoder", trained_length=512),
    "gpt2": Family(form="decoder"),
    "llama": Family(form="decoder"),
    "qwen2": Family(form="decoder"),
    "qwen3": Family(form="decoder"),
}


def family_of(model_type: str, name: str) -> Family:
    """The family of a ``model_type``.

    Raises:
        ValueError: it is not supported; lists what is.
    """
    if model_type not in FAMILIES:
        raise ValueError(
            f"backbone.name={name!r}: model type {model_type!r} is not supported; expected one of "
            f"{', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[model_type]
