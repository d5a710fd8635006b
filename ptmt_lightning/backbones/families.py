"""The families of backbones: their form, the modules of their head, and whether they are built like BERT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

Form = Literal["encoder", "decoder", "encoder-decoder"]


@dataclass(frozen=True)
class Family:
    """The properties of a family (a ``model_type`` of Transformers) that backbones depend on.

    The head's transform is what a language-modelling head does with states before it compares them with token
    embeddings.

    Args:
        head_modules: modules of the head's transform, applied one after the other: dotted names within the model, or
            "gelu" for the function.
        form: an encoder fills masks, a decoder continues its text, an encoder-decoder reads a text and writes another.
        is_bert_like: whether embeddings, layers and attention have BERT's names and order.
        counts_positions_from_padding: whether position numbers start after the padding token's id, as in models that
            stem from fairseq.
        trained_length: longest sequence of the pretraining, in tokens, for models with relative positions and without a
            position table; else None.
    """

    head_modules: tuple[str, ...] = ()
    form: Form = "encoder"
    is_bert_like: bool = False
    counts_positions_from_padding: bool = False
    trained_length: int | None = None

    def head(self, model: nn.Module) -> list[nn.Module]:
        """Return the modules of a model's head transform."""
        return [model.get_submodule(name) for name in self.head_modules if name != "gelu"]

    def transform(self, model: Any, states: Tensor) -> Tensor:
        """Apply a model's head transform to states ``[..., H]``: ``[..., E]``, the size of token embeddings."""
        for name in self.head_modules:
            states = F.gelu(states) if name == "gelu" else model.get_submodule(name)(states)
        if getattr(model.config, "scale_decoder_outputs", False):  # T5 with tied matrices
            states = states * model.config.hidden_size**-0.5
        return states

    def max_positions(self, config: Any) -> int:
        """Return the longest sequence that the position table holds; without a table, what the model was made for."""
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
    """Return the family of a model.

    Args:
        model_type: ``model_type`` of the model's configuration.
        name: name of the model in error messages.

    Raises:
        ValueError: the family is not supported.
    """
    if model_type not in FAMILIES:
        raise ValueError(
            f"backbone.name={name!r}: model type {model_type!r} is not supported; expected one of "
            f"{', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[model_type]
