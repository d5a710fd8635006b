"""A Transformers language model: adds rows to its vocabulary, and computes only the states asked for.

Shape legend: ``B`` documents, ``L`` sequence length, ``K`` positions a document, ``H`` hidden size, ``E`` size of token
embeddings (in most families H), ``T`` vocabulary.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.masking_utils import create_bidirectional_mask
from transformers.pytorch_utils import Conv1D

from ptmt_lightning.backbones.families import Family, family_of

KeysValues = tuple[Tensor, Tensor]  # [B, heads, L, H / heads] each


class Backbone(nn.Module):
    """A language model that runs its head, and where it is built like BERT its last layer, at selected positions only.

    The states at a few positions are all that the method needs: the mask slots and, in training, the masked text
    tokens. Every position still takes part in the last layer's attention as key and value, so these states equal
    those of the stock forward; what is saved is queries, feed-forward and head everywhere else.

    Args:
        trained_head: whether the language-modelling head comes with the model.

    Raises:
        ValueError: a family that is not supported.
    """

    def __init__(self, model: PreTrainedModel, *, trained_head: bool) -> None:
        super().__init__()
        self.family: Family = family_of(model.config.model_type, str(model.name_or_path))
        self.trained_head = trained_head
        # from_pretrained gives an evaluating model, and Lightning keeps the mode: dropout would stay off in training.
        self.model = model.train()
        # Of new tokens; parameters once there are some.
        self.new_rows = torch.empty(0, self.token_embeddings.shape[1])  # [N, E]
        self.new_output_rows = self.new_rows  # [N, E]
        self.new_bias = torch.empty(0)  # [N]

    @property
    def encoder(self) -> Any:
        """The model without its head."""
        return self.model.base_model

    @property
    def hidden_size(self) -> int:
        """H."""
        size: int = self.model.config.hidden_size
        return size

    @property
    def max_positions(self) -> int:
        """The longest sequence that the position table holds, or that the model was made for."""
        return self.family.max_positions(self.model.config)

    @property
    def token_embeddings(self) -> nn.Parameter:
        """``[T, E]``; its last rows, of new tokens, only hold their places until :meth:`write_new_rows`."""
        weight: nn.Parameter = self.model.get_input_embeddings().weight
        return weight

    @property
    def output_matrix(self) -> nn.Parameter:
        """``[T, E]``, in most families the same as :attr:`token_embeddings`."""
        weight: nn.Parameter = self.model.get_output_embeddings().weight
        return weight

    @property
    def is_tied(self) -> bool:
        """Whether these two are one."""
        return self.output_matrix is self.token_embeddings

    @property
    def output_bias(self) -> Tensor | None:
        """``[T]``, where the family has one."""
        if hasattr(self.model, "final_logits_bias"):  # BART
            bias: Tensor | None = self.model.final_logits_bias[0]
        else:
            bias = self.model.get_output_embeddings().bias
        return bias

    def random_rows(self, num_rows: int) -> Tensor:
        """New embeddings ``[N, E]``, drawn with the backbone's own spread."""
        matrix_TE = self.token_embeddings.detach()
        spread = getattr(self.model.config, "initializer_range", matrix_TE.std())  # BART and T5 do not say
        return torch.randn(num_rows, matrix_TE.shape[1]) * spread

    def head_parameters(self) -> list[nn.Parameter]:
        """Of the head's transform."""
        return [parameter for module in self.family.head(self.model) for parameter in module.parameters()]

    def freeze(self) -> None:
        """Train the head's transform and new tokens only."""
        self.model.requires_grad_(False)
        for parameter in self.head_parameters():
            parameter.requires_grad_(True)

    def add_adapters(self, rank: int, alpha: int, dropout: float) -> None:
        """Train low-rank updates of all linear layers in place of the layers (Hu et al. 2022).

        The head's transform and new tokens are trained in full.
        """
        head = {id(module) for part in self.family.head(self.model) for module in part.modules()}
        head.add(id(self.model.get_output_embeddings()))
        linear = [
            name
            for name, module in self.model.named_modules()
            if isinstance(module, (nn.Linear, Conv1D)) and id(module) not in head
        ]
        import peft  # of an extra

        config = peft.LoraConfig(
            r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=linear,
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in self.model.modules()),  # GPT-2's
        )  # fmt: skip
        peft.inject_adapter_in_model(config, self.model)
        for parameter in self.head_parameters():
            parameter.requires_grad_(True)

    def save_pretrained(self, folder: Path) -> None:
        """Write the model as Transformers has it: new tokens in their places, low-rank updates added up."""
        self.write_new_rows()
        model = self.model
        adapted = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
        if adapted:
            model = copy.deepcopy(model)
        for name in adapted:
            layer: Any = model.get_submodule(name)
            layer.merge()
            model.set_submodule(name, layer.get_base_layer())
        model.save_pretrained(folder)

    def compile_passes(self) -> None:
        """Compile the ways through the encoder, for batches of any size."""
        for name in ("states", "attend"):
            setattr(self, name, torch.compile(getattr(self, name), dynamic=True))

    def freeze_output(self) -> None:
        """No gradients for what only scores the model's own tokens: distributed training would wait for them."""
        if self.output_bias is not None:
            self.output_bias.requires_grad_(False)
        if not self.is_tied:
            self.output_matrix.requires_grad_(False)

    def new_parameters(self) -> list[nn.Parameter]:
        """Of new tokens, and low-rank updates."""
        updates = [parameter for name, parameter in self.model.named_parameters() if "lora_" in name]
        return [*self.parameters(recurse=False), *updates]

    def add_token_rows(self, rows_NE: Tensor, bias_N: Tensor, output_rows_NE: Tensor | None = None) -> None:
        """Add tokens with these embeddings and output biases.

        They are parameters of their own, so that they can have a learning rate of their own, and be trained where
        the pretrained matrix is not.

        Args:
            output_rows_NE: rows of the output matrix, where that is another one.
        """
        self.model.resize_token_embeddings(len(self.token_embeddings) + len(rows_NE), mean_resizing=False)
        self.new_rows = nn.Parameter(rows_NE)
        self.new_output_rows = self.new_rows if output_rows_NE is None else nn.Parameter(output_rows_NE)
        self.new_bias = nn.Parameter(bias_N)
        self.write_new_rows()

    @torch.no_grad()
    def adopt_rows(self, num_rows: int) -> None:
        """Take the last rows of the model's matrices for the new tokens': the way back from :meth:`write_new_rows`."""
        self.new_rows = nn.Parameter(self.token_embeddings[-num_rows:].clone())
        self.new_output_rows = self.new_rows if self.is_tied else nn.Parameter(self.output_matrix[-num_rows:].clone())
        bias = self.output_bias
        self.new_bias = nn.Parameter(self.new_rows.new_zeros(num_rows) if bias is None else bias[-num_rows:].clone())

    @torch.no_grad()
    def write_new_rows(self) -> None:
        """Copy the new tokens' parameters to where the model itself looks for them."""
        if len(self.new_rows) == 0:
            return
        self.token_embeddings[-len(self.new_rows) :] = self.new_rows
        self.output_matrix[-len(self.new_rows) :] = self.new_output_rows
        if self.output_bias is not None:
            self.output_bias[-len(self.new_rows) :] = self.new_bias

    def embed_tokens(self, input_ids: Tensor) -> Tensor:
        """Embeddings ``[B, L, E]`` of tokens ``[B, L]``."""
        table = self.model.get_input_embeddings()
        embeddings: Tensor = table(input_ids)
        if len(self.new_rows) == 0:
            return embeddings
        index = input_ids - (len(self.token_embeddings) - len(self.new_rows))
        own = F.embedding(index.clamp_min(0), self.new_rows) * getattr(table, "embed_scale", 1.0)
        return torch.where(index[..., None] >= 0, own, embeddings)

    def forward(self, *inputs: Any, **further: Any) -> Tensor:
        """States ``[B, K, E]`` after the head's transform; arguments as for :meth:`states`."""
        return self.transform(self.states(*inputs, **further))

    def states(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        positions: Tensor,
        token_states: Tensor | None = None,
        decoder_ids: Tensor | None = None,
        num_layers: int = 1,
    ) -> Tensor:
        """States ``[B, K, H]`` of the last layer, or of several, concatenated.

        Args:
            input_ids, attention_mask: ``[B, L]``; padding may be on either side of a decoder's text.
            positions: int64 ``[B, K]``, in the decoder's sequence where there is one beside the encoder.
            token_states: ``[B, L, E]`` in place of the tokens' embeddings.
            decoder_ids: ``[B, Q]``, what the decoder of an encoder-decoder reads.
            num_layers: how many of the last layers, the lowest first: ``[B, K, num_layers * H]``; of encoders only.
        """
        if token_states is None:
            token_states = self.embed_tokens(input_ids)
        if self.family.form == "decoder":
            places = (attention_mask.cumsum(dim=1) - 1).clamp_min(0)
            output = self.encoder(
                inputs_embeds=token_states, attention_mask=attention_mask, position_ids=places, use_cache=False
            )
            return _gather(output.last_hidden_state, positions)
        if decoder_ids is not None:
            text = self.model.get_encoder()(inputs_embeds=token_states, attention_mask=attention_mask)
            output = self.model.get_decoder()(
                inputs_embeds=self.embed_tokens(decoder_ids), encoder_hidden_states=text.last_hidden_state,
                encoder_attention_mask=attention_mask, use_cache=False,
            )  # fmt: skip
            return _gather(output.last_hidden_state, positions)
        if not self.family.is_bert_like:
            output = self.encoder(
                inputs_embeds=token_states, attention_mask=attention_mask, output_hidden_states=num_layers > 1
            )
            last = output.hidden_states[-num_layers:] if num_layers > 1 else [output.last_hidden_state]
            return torch.cat([_gather(hidden_BLH, positions) for hidden_BLH in last], dim=-1)
        encoder = self.encoder
        hidden_BLH = encoder.embeddings(inputs_embeds=token_states)
        if hasattr(encoder, "embeddings_project"):  # ELECTRA, from E to H
            hidden_BLH = encoder.embeddings_project(hidden_BLH)
        mask = create_bidirectional_mask(self.model.config, hidden_BLH, attention_mask)
        *layers, last_layer = encoder.encoder.layer
        found = []
        for index, layer in enumerate(layers):
            hidden_BLH = layer(hidden_BLH, mask)
            if index > len(layers) - num_layers:
                found.append(_gather(hidden_BLH, positions))
        return torch.cat([*found, _layer_at(last_layer, hidden_BLH, mask, positions)], dim=-1)

    def embed(self, token_states: Tensor, position_ids: Tensor, token_types: Tensor) -> Tensor:
        """What the first layer reads, ``[B, L, H]``.

        Args:
            token_states: embeddings of tokens or of anything in their place, ``[B, L, H]``.
            position_ids, token_types: int64 ``[B, L]``.
        """
        embedded: Tensor = self.encoder.embeddings(
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
        for index, layer in enumerate(self.encoder.encoder.layer):
            keys, values = _keys_values(layer.attention.self, hidden)
            own.append((keys, values))
            if past:
                keys, values = (torch.cat(pair, dim=2) for pair in zip(past[index], (keys, values), strict=True))
            hidden = _attend(layer, hidden, keys, values, mask[:, None])
        return hidden, own

    def transform(self, states: Tensor) -> Tensor:
        """The head's transform, ``[..., E]`` from ``[..., H]``; nothing where the family has none."""
        return self.family.transform(self.model, states)

    def token_logits(self, states: Tensor) -> Tensor:
        """Scores ``[..., T]`` of all tokens for transformed states ``[..., E]``."""
        if len(self.new_rows) == 0:
            return F.linear(states, self.output_matrix, self.output_bias)
        size = len(self.output_matrix) - len(self.new_rows)
        bias = None if self.output_bias is None else self.output_bias[:size]
        known = F.linear(states, self.output_matrix[:size], bias)
        return torch.cat([known, F.linear(states, self.new_output_rows, self.new_bias)], dim=-1)


def _layer_at(layer: Any, hidden_BLH: Tensor, mask: Any, positions_BK: Tensor) -> Tensor:
    """One BERT layer, all positions as keys and values, the given ones as queries: ``[B, K, H]``."""
    attention = layer.attention
    if attention.self.config._attn_implementation not in ("sdpa", "eager"):
        full: Tensor = layer(hidden_BLH, mask)
        return _gather(full, positions_BK)
    # [B, 1, L, L]; without a causal part all rows are alike
    row = None if mask is None else mask[:, :, :1].expand(-1, -1, positions_BK.shape[1], -1)
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
    backbone: Backbone,
    tokenizer: PreTrainedTokenizerBase,
    names: Sequence[str],
    *,
    reduction: Literal["mean", "sum"],
    of_output: bool = False,
) -> Tensor:
    """Mean or sum of the embeddings of each name's word pieces, ``[V, E]``; random for a name without any.

    Args:
        of_output: take the rows of the output matrix.
    """
    old_TE = (backbone.output_matrix if of_output else backbone.token_embeddings).detach()
    rows_VE = backbone.random_rows(len(names))
    words = [re.sub(r"[\W_]+", " ", f" {name}") for name in names]  # as within a text, where that makes a difference
    for row, ids in enumerate(tokenizer(words, add_special_tokens=False)["input_ids"]):
        if ids:
            rows_VE[row] = old_TE[ids].mean(dim=0) if reduction == "mean" else old_TE[ids].sum(dim=0)
    return rows_VE
