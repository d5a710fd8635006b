"""Opens a Transformers masked-LM encoder, adds rows to its vocabulary, and computes only the states asked for.

Shape legend: ``B`` documents, ``L`` sequence length, ``K`` positions a document, ``H`` hidden size, ``T`` vocabulary.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.masking_utils import create_bidirectional_mask
from transformers.utils import logging as transformers_logging

from ptmt_lightning.checks import check_range

log = logging.getLogger(__name__)

KeysValues = tuple[Tensor, Tensor]  # [B, heads, L, H / heads] each

SUPPORTED = ("bert",)  # values of model_type in a model's config.json
_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class Backbone(nn.Module):
    """A BERT masked-LM model that runs its last layer and its head at selected positions only.

    The states at a few positions are all that the method needs: the mask slots and, in training, the masked text
    tokens. Every position still takes part in the last layer's attention as key and value, so these states equal
    those of the stock forward; what is saved is queries, feed-forward and head everywhere else.

    Args:
        trained_head: whether the masked-LM head comes with the model.
    """

    def __init__(self, model: PreTrainedModel, *, trained_head: bool) -> None:
        super().__init__()
        self.trained_head = trained_head
        if model.config.model_type not in SUPPORTED:
            raise ValueError(
                f"backbone.name={model.name_or_path!r}: model type {model.config.model_type!r} is not supported; "
                f"expected one of {', '.join(SUPPORTED)}"
            )
        # from_pretrained gives an evaluating model, and Lightning keeps the mode: dropout would stay off in training.
        self.model = model.train()
        self._first_new: int | None = None

    @property
    def max_positions(self) -> int:
        """The longest sequence that the position table holds."""
        positions: int = self.model.config.max_position_embeddings
        return positions

    @property
    def token_embeddings(self) -> nn.Parameter:
        """``[T, H]``, tied to the output matrix."""
        weight: nn.Parameter = self.model.get_input_embeddings().weight
        return weight

    @property
    def output_bias(self) -> nn.Parameter:
        """``[T]``."""
        bias: nn.Parameter = self.model.get_output_embeddings().bias
        return bias

    def compile_passes(self) -> None:
        """Compile the ways through the encoder, for batches of any size."""
        for name in ("states", "attend"):
            setattr(self, name, torch.compile(getattr(self, name), dynamic=True))

    def new_rows(self) -> list[Tensor]:
        """Views of the rows that :meth:`add_token_rows` appended: ``[N, H]`` and ``[N]``."""
        if self._first_new is None:
            return []
        return [matrix.detach()[self._first_new :] for matrix in (self.token_embeddings, self.output_bias)]

    def add_token_rows(self, rows_NH: Tensor, bias_N: Tensor) -> None:
        """Append rows to the tied embedding matrix, and their output biases."""
        self._first_new = self.token_embeddings.shape[0]
        self.model.resize_token_embeddings(self._first_new + len(rows_NH), mean_resizing=False)
        with torch.no_grad():
            self.token_embeddings[self._first_new :] = rows_NH
            self.output_bias[self._first_new :] = bias_N

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, positions: Tensor, token_states: Tensor | None = None
    ) -> Tensor:
        """States ``[B, K, H]`` after the head's transform; arguments as for :meth:`states`."""
        return self.transform(self.states(input_ids, attention_mask, positions, token_states))

    def states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        positions: Tensor,
        token_states: Tensor | None = None,
        num_layers: int = 1,
    ) -> Tensor:
        """States ``[B, K, H]`` of the last layer, or of several, concatenated.

        Args:
            input_ids, attention_mask: ``[B, L]``.
            positions: int64 ``[B, K]``.
            token_states: ``[B, L, H]`` in place of the tokens' embeddings.
            num_layers: how many of the last layers, the lowest first: ``[B, K, num_layers * H]``.
        """
        encoder = self.model.bert
        hidden_BLH = encoder.embeddings(
            input_ids=input_ids if token_states is None else None, inputs_embeds=token_states
        )
        mask = create_bidirectional_mask(self.model.config, hidden_BLH, attention_mask)
        *layers, last = encoder.encoder.layer
        found = []
        for index, layer in enumerate(layers):
            hidden_BLH = layer(hidden_BLH, mask)
            if index > len(layers) - num_layers:
                found.append(_gather(hidden_BLH, positions))
        return torch.cat([*found, _layer_at(last, hidden_BLH, mask, positions)], dim=-1)

    def embed(self, token_states: Tensor, position_ids: Tensor, token_types: Tensor) -> Tensor:
        """What the first layer reads, ``[B, L, H]``.

        Args:
            token_states: embeddings of tokens or of anything in their place, ``[B, L, H]``.
            position_ids, token_types: int64 ``[B, L]``.
        """
        embedded: Tensor = self.model.bert.embeddings(
            inputs_embeds=token_states, position_ids=position_ids, token_type_ids=token_types
        )
        return embedded

    def attend(self, hidden: Tensor, mask: Tensor, past: Sequence[KeysValues] = ()) -> tuple[Tensor, list[KeysValues]]:
        """All layers over new positions that may look at each other and at earlier ones.

        Args:
            hidden: from :meth:`embed`, ``[B, Q, H]``.
            mask: bool ``[B, Q, P + Q]``, what each new position looks at: the earlier ones, then the new ones.
            past: keys and values of the P earlier positions, a pair a layer.

        Returns:
            States ``[B, Q, H]`` of the last layer, and the keys and values of the new positions.
        """
        own = []
        for index, layer in enumerate(self.model.bert.encoder.layer):
            keys, values = _keys_values(layer.attention.self, hidden)
            own.append((keys, values))
            if past:
                keys, values = (torch.cat(pair, dim=2) for pair in zip(past[index], (keys, values), strict=True))
            hidden = _attend(layer, hidden, keys, values, mask[:, None])
        return hidden, own

    def transform(self, states: Tensor) -> Tensor:
        """The masked-LM head's transform, ``[..., H]``."""
        transformed: Tensor = self.model.cls.predictions.transform(states)
        return transformed

    def token_logits(self, states: Tensor) -> Tensor:
        """Scores ``[..., T]`` of all tokens for transformed states ``[..., H]``."""
        return F.linear(states, self.token_embeddings, self.output_bias)


def _layer_at(layer: Any, hidden_BLH: Tensor, mask: Any, positions_BK: Tensor) -> Tensor:
    """One BERT layer, all positions as keys and values, the given ones as queries: ``[B, K, H]``."""
    attention = layer.attention
    if attention.self.config._attn_implementation not in ("sdpa", "eager"):
        full: Tensor = layer(hidden_BLH, mask)
        return _gather(full, positions_BK)
    # [B, 1, L, L]; without a causal part all rows are alike
    row = None if mask is None else mask[:, :, :1]
    return _attend(layer, _gather(hidden_BLH, positions_BK), *_keys_values(attention.self, hidden_BLH), row)


def _keys_values(attention: Any, states: Tensor) -> KeysValues:
    return _heads(attention, attention.key, states), _heads(attention, attention.value, states)


def _heads(attention: Any, projection: nn.Module, states: Tensor) -> Tensor:
    split: Tensor = projection(states).unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)
    return split


def _attend(layer: Any, hidden: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """One layer at the positions ``hidden`` ``[B, Q, H]``, which look at ``keys`` and ``values``."""
    attention = layer.attention
    context = F.scaled_dot_product_attention(
        _heads(attention.self, attention.self.query, hidden),
        keys,
        values,
        attn_mask=mask,
        dropout_p=attention.self.dropout.p if layer.training else 0.0,
    )
    attended = attention.output(context.transpose(1, 2).flatten(-2), hidden)
    output: Tensor = layer.feed_forward_chunk(attended)
    return output


def _gather(hidden_BLH: Tensor, positions_BK: Tensor) -> Tensor:
    return hidden_BLH.gather(1, positions_BK[..., None].expand(-1, -1, hidden_BLH.shape[-1]))


def name_embeddings(
    backbone: Backbone, tokenizer: PreTrainedTokenizerBase, names: Sequence[str], *, reduction: Literal["mean", "sum"]
) -> Tensor:
    """Mean or sum of the embeddings of each name's word pieces, ``[V, H]``.

    A name without any is drawn at random, with the backbone's own spread.
    """
    old_TH = backbone.token_embeddings.detach()
    rows_VH: Tensor = torch.randn(len(names), old_TH.shape[1]) * backbone.model.config.initializer_range
    words = [re.sub(r"[\W_]+", " ", name) for name in names]
    for row, ids in enumerate(tokenizer(words, add_special_tokens=False)["input_ids"]):
        if ids:
            rows_VH[row] = old_TH[ids].mean(dim=0) if reduction == "mean" else old_TH[ids].sum(dim=0)
    return rows_VH


# ---- where backbones come from ----


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A model of a hub or of a local folder.

    Args:
        name: hub name or folder.
        max_length: longest sequence, template included; None for what the model allows.
        attention: attention implementation of Transformers (``sdpa``, ``eager``, ...).
    """

    name: str
    max_length: int | None = None
    attention: str = "sdpa"

    def load(self, texts: Iterable[str]) -> tuple[Backbone, PreTrainedTokenizerBase, int]:
        """Open model and tokenizer; gives them with the longest sequence to use. ``texts`` is not read.

        Raises:
            ValueError: nothing usable under that name, an unsupported family, or a bad ``max_length``.
        """
        _check_folder(self.name)
        try:
            model_type = AutoConfig.from_pretrained(self.name).model_type
            if model_type not in SUPPORTED:
                raise ValueError(f"model type {model_type!r} is not supported; expected one of {', '.join(SUPPORTED)}")
            tokenizer = AutoTokenizer.from_pretrained(self.name)
            with quiet_transformers():
                model, info = AutoModelForMaskedLM.from_pretrained(
                    self.name, output_loading_info=True, attn_implementation=self.attention, dtype=torch.float32
                )
        except (OSError, ValueError) as error:
            raise ValueError(
                f"backbone.name={self.name!r}: {str(error).strip()}; expected a folder or hub name of a masked-LM "
                "model with config.json, weights (model.safetensors) and tokenizer"
            ) from error
        trained_head = not any("transform" in key for key in info["missing_keys"])
        if not trained_head:
            _start_head_at_identity(model)
            log.warning("%s has no trained masked-LM head: a new one starts at the identity", self.name)
        return _ready(Backbone(model, trained_head=trained_head), tokenizer, self.max_length, self.name)


@dataclass(frozen=True, kw_only=True)
class FromScratch:
    """A small BERT with random weights and a vocabulary of the training texts, for samples and tests.

    Args:
        name: what messages and tables call it.
        vocabulary_size: most frequent words kept; the others are spelt in characters.
    """

    name: str
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    vocabulary_size: int
    max_length: int
    dropout: float = 0.1

    def load(self, texts: Iterable[str]) -> tuple[Backbone, PreTrainedTokenizerBase, int]:
        """Make the tokenizer from ``texts`` and the model from a config."""
        check_range("backbone.vocabulary_size", self.vocabulary_size, 1, integer=True)
        tokenizer = word_tokenizer(texts, self.vocabulary_size)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            intermediate_size=self.intermediate_size,
            max_position_embeddings=self.max_length,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            pad_token_id=tokenizer.pad_token_id,
        )
        return _ready(Backbone(BertForMaskedLM(config), trained_head=False), tokenizer, self.max_length, self.name)


def word_tokenizer(texts: Iterable[str], size: int) -> BertTokenizer:
    """A lower-casing WordPiece tokenizer: the ``size`` most frequent words, and single characters for the rest.

    Ties go by spelling, so every process makes the same one.
    """
    split = pre_tokenizers.BertPreTokenizer()
    normalize = normalizers.BertNormalizer(lowercase=True)
    words: Counter[str] = Counter()
    for text in texts:
        words.update(word for word, _ in split.pre_tokenize_str(normalize.normalize_str(text)))
    frequent = sorted(words, key=lambda word: (-words[word], word))[:size]
    characters = sorted({character for word in words for character in word})
    pieces = [*_SPECIAL_TOKENS, *characters, *(f"##{character}" for character in characters), *frequent]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer, backend.decoder = normalize, split, decoders.WordPiece()
    return BertTokenizer(vocab=vocabulary, tokenizer_object=backend)


def _ready(
    backbone: Backbone, tokenizer: PreTrainedTokenizerBase, max_length: int | None, name: str
) -> tuple[Backbone, PreTrainedTokenizerBase, int]:
    if len(backbone.token_embeddings) != len(tokenizer):  # a matrix padded for speed: new tokens follow the vocabulary
        backbone.model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    longest = backbone.max_positions
    if max_length is not None:
        check_range("backbone.max_length", max_length, 1, integer=True)
        if max_length > longest:
            raise ValueError(
                f"backbone.max_length={max_length}: {name} holds {longest} positions; set it to at most that"
            )
    return backbone, tokenizer, max_length or longest


def _check_folder(name: str) -> None:
    """Say what a local folder lacks, before Transformers looks for it on a hub."""
    folder = Path(name)
    if not folder.is_dir():
        return
    wanted = {
        "config.json": ["config.json"],
        "weights": ["*.safetensors", "pytorch_model*.bin"],
        "tokenizer": ["tokenizer.json", "vocab.txt", "vocab.json", "*.model"],
    }
    for part, patterns in wanted.items():
        if not any(path for pattern in patterns for path in folder.glob(pattern)):
            raise ValueError(
                f"backbone.name={name!r}: the folder has no {part} ({' or '.join(patterns)}); save it there with "
                "save_pretrained of the model and of the tokenizer"
            )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no reports: what matters in them is said by the caller."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()


def _start_head_at_identity(model: Any) -> None:
    """A new head transform passes the encoder's states on, where random weights would scramble them."""
    dense = model.cls.predictions.transform.dense
    with torch.no_grad():
        nn.init.eye_(dense.weight)
        nn.init.zeros_(dense.bias)
