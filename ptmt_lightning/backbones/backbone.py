"""A language model of Transformers to which tokens can be added, and which computes states at chosen positions only.

Shape legend: ``B`` documents, ``L`` sequence length, ``K`` positions a document, ``H`` hidden size, ``E`` size of token
embeddings (in most families H), ``T`` vocabulary, ``N`` new tokens, ``Q`` length of a decoder's sequence or number of
new positions, ``P`` positions read before.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from operator import sub
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.pytorch_utils import Conv1D

from ptmt_lightning.backbones.attention import (
    KeysValues,
    attend_from,
    gather_positions,
    keys_values,
    layer_at_positions,
)
from ptmt_lightning.backbones.families import Family, family_of
from ptmt_lightning.backbones.learned import Learned


class Backbone(nn.Module):
    """A language model that runs its head, and where it is built like BERT its last layer, at selected positions only.

    The method needs states at a few positions only: those of the mask slots and, in training, of masked text tokens.
    Every position still takes part in the last layer's attention as key and value, so these states equal those of the
    stock forward; queries, feed-forward and head are saved everywhere else.

    The head's transform is what the language-modelling head does with states before it compares them with token
    embeddings.

    Args:
        model: the model, with its language-modelling head.
        trained_head: whether that head is pretrained, too.
        is_pretrained: whether anything of it is.
        missing: names of the tensors that the model's files lack, which are new.

    Attributes:
        new_rows: input embeddings of new tokens, ``[N, E]``.
        new_output_rows: output embeddings of new tokens, ``[N, E]``; the same parameter where matrices are tied.
        new_bias: output biases of new tokens, ``[N]``.

    Raises:
        ValueError: the family of the model is not supported.
    """

    commit: str | None = None  # of the hub that the model comes from
    learned: Learned | None = None  # what a trained model, from which a training starts, has added to it

    def __init__(
        self, model: PreTrainedModel, *, trained_head: bool, is_pretrained: bool = True, missing: Sequence[str] = ()
    ) -> None:
        super().__init__()
        self.trained_head, self.is_pretrained, self.missing = trained_head, is_pretrained, tuple(missing)
        self.family: Family = family_of(model.config.model_type, str(model.name_or_path))
        # from_pretrained gives an evaluating model, and Lightning keeps the mode: dropout would stay off in training.
        self.model = model.train()
        # They become parameters when tokens are added.
        self.new_rows = torch.empty(0, self.token_embeddings.shape[1])  # [N, E]
        self.new_output_rows = self.new_rows  # [N, E]
        self.new_bias = torch.empty(0)  # [N]

    @property
    def encoder(self) -> Any:
        """The model without its language-modelling head."""
        return self.model.base_model

    @property
    def hidden_size(self) -> int:
        """Size H of hidden states."""
        size: int = self.model.config.hidden_size
        return size

    @property
    def max_positions(self) -> int:
        """Longest sequence that the position table holds; without a table, the longest that the model was made for."""
        return self.family.max_positions(self.model.config)

    @property
    def token_embeddings(self) -> nn.Parameter:
        """Input embeddings of the model's own tokens, ``[T, E]``, without those of new ones."""
        weight: nn.Parameter = self.model.get_input_embeddings().weight
        return weight

    @property
    def output_matrix(self) -> nn.Parameter:
        """Output embeddings of the model's own tokens, ``[T, E]``; mostly the same matrix as the input embeddings."""
        weight: nn.Parameter = self.model.get_output_embeddings().weight
        return weight

    @property
    def is_tied(self) -> bool:
        """Whether input and output embeddings share one matrix."""
        return self.output_matrix is self.token_embeddings

    @property
    def output_bias(self) -> Tensor | None:
        """Output biases of the model's own tokens, ``[T]``; None where the family has none."""
        if hasattr(self.model, "final_logits_bias"):  # BART
            bias: Tensor | None = self.model.final_logits_bias[0]
        else:
            bias = self.model.get_output_embeddings().bias
        return bias

    def random_rows(self, num_rows: int) -> Tensor:
        """Draw embeddings ``[N, E]`` from a normal distribution with the standard deviation of the backbone's own."""
        matrix_TE = self.token_embeddings.detach()
        # The configurations of BART and T5 do not say.
        spread = getattr(self.model.config, "initializer_range", matrix_TE.std())
        return torch.randn(num_rows, matrix_TE.shape[1]) * spread

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the head's transform."""
        return [parameter for module in self.family.head(self.model) for parameter in module.parameters()]

    def freeze(self) -> None:
        """Freeze all pretrained parameters but the head's transform; new tokens are trained in any case."""
        self.model.requires_grad_(False)
        for parameter in self.head_parameters():
            parameter.requires_grad_(True)

    def add_adapters(self, rank: int, alpha: int, dropout: float) -> None:
        """Add low-rank updates (LoRA, Hu et al. 2022) to all linear layers, to be trained in their place.

        The head's transform and new tokens are trained in full.

        Args:
            rank: rank of the updates.
            alpha: updates are scaled by ``alpha / rank``.
            dropout: dropout probability of the updates' inputs.
        """
        head = {id(module) for part in self.family.head(self.model) for module in part.modules()}
        head.add(id(self.model.get_output_embeddings()))
        linear = [
            name
            for name, module in self.model.named_modules()
            if isinstance(module, (nn.Linear, Conv1D)) and id(module) not in head
        ]
        import peft  # installed with the extra lora only

        config = peft.LoraConfig(
            r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=linear,
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in self.model.modules()),  # GPT-2's weights
        )  # fmt: skip
        peft.inject_adapter_in_model(config, self.model)
        for parameter in self.head_parameters():
            parameter.requires_grad_(True)

    def save_pretrained(self, folder: Path) -> None:
        """Write a model folder of Transformers, new tokens and low-rank updates merged into the model's matrices."""
        self.merged().save_pretrained(folder)

    @torch.no_grad()
    def merged(self) -> PreTrainedModel:
        """Return a copy of the model with new tokens and low-rank updates merged into its matrices."""
        model: PreTrainedModel = copy.deepcopy(self.model)
        for name, module in self.model.named_modules():
            if hasattr(module, "lora_A"):
                layer: Any = model.get_submodule(name)
                layer.merge()
                model.set_submodule(name, layer.get_base_layer())
        if size := len(self.new_rows):
            model.resize_token_embeddings(len(self.token_embeddings) + size, mean_resizing=False)
            whole = Backbone(model, trained_head=self.trained_head).train(self.training)
            whole.token_embeddings[-size:] = self.new_rows
            whole.output_matrix[-size:] = self.new_output_rows
            if whole.output_bias is not None:
                whole.output_bias[-size:] = self.new_bias
        return model

    def compile_passes(self) -> None:
        """Compile :meth:`states` and :meth:`attend` with ``torch.compile``, for batches of any shape."""
        for name in ("states", "attend"):
            setattr(self, name, torch.compile(getattr(self, name), dynamic=True))

    def freeze_output(self) -> None:
        """Freeze the parameters that only score the model's own tokens.

        Where no such scores are computed they get no gradients, which distributed training would wait for.
        """
        if self.output_bias is not None:
            self.output_bias.requires_grad_(False)
        if not self.is_tied:
            self.output_matrix.requires_grad_(False)

    def new_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that are not pretrained: those of new tokens, and low-rank updates."""
        updates = [parameter for name, parameter in self.model.named_parameters() if "lora_" in name]
        return [*self.parameters(recurse=False), *updates]

    def add_token_rows(self, rows_NE: Tensor, bias_N: Tensor, output_rows_NE: Tensor | None = None) -> None:
        """Add tokens at the end of the vocabulary.

        Their embeddings and biases are parameters of their own, beside the model's matrices (see :meth:`merged`): they
        can have a learning rate of their own, and be trained where the pretrained matrix is not.

        Args:
            rows_NE: input embeddings.
            bias_N: output biases.
            output_rows_NE: output embeddings; None where input and output embeddings share one matrix.
        """
        self.new_rows = nn.Parameter(rows_NE)
        self.new_output_rows = self.new_rows if output_rows_NE is None else nn.Parameter(output_rows_NE)
        self.new_bias = nn.Parameter(bias_N)

    @torch.no_grad()
    def adopt_rows(self, num_rows: int) -> None:
        """Turn the last tokens of the model's vocabulary into new tokens, which reverses :meth:`merged`.

        Args:
            num_rows: number of new tokens N.
        """
        self.new_rows = nn.Parameter(self.token_embeddings[-num_rows:].clone())
        self.new_output_rows = self.new_rows if self.is_tied else nn.Parameter(self.output_matrix[-num_rows:].clone())
        bias = self.output_bias
        self.new_bias = nn.Parameter(self.new_rows.new_zeros(num_rows) if bias is None else bias[-num_rows:].clone())
        self.model.resize_token_embeddings(len(self.token_embeddings) - num_rows, mean_resizing=False)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *further: Any) -> None:
        """Load weights; of earlier versions, whose own matrices have rows for new tokens, too, without these."""
        for name, own in self.model.state_dict(prefix=f"{prefix}model.").items():
            if name in state_dict and {*map(sub, state_dict[name].shape, own.shape)} <= {0, len(self.new_rows)}:
                state_dict[name] = state_dict[name][tuple(map(slice, own.shape))]
        super()._load_from_state_dict(state_dict, prefix, *further)

    def embed_tokens(self, input_ids: Tensor) -> Tensor:
        """Return the embeddings ``[B, L, E]`` of tokens ``[B, L]``, new ones included."""
        table, size = self.model.get_input_embeddings(), len(self.token_embeddings)
        if len(self.new_rows) == 0:
            embeddings: Tensor = table(input_ids)
            return embeddings
        embeddings, index = table(input_ids.clamp_max(size - 1)), input_ids - size
        own = F.embedding(index.clamp_min(0), self.new_rows) * getattr(table, "embed_scale", 1.0)
        return torch.where(index[..., None] >= 0, own, embeddings)

    def forward(self, *inputs: Any, **further: Any) -> Tensor:
        """Return states after the head's transform, ``[B, K, E]``; arguments are those of :meth:`states`."""
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
        """Return the states of the last layer at some positions, or of several last layers, concatenated.

        Args:
            input_ids: int64 ``[B, L]``.
            attention_mask: int64 ``[B, L]``, 0 for padding, which may be on either side of a decoder's text.
            positions: int64 ``[B, K]``, in the decoder's sequence where there is one beside the encoder.
            token_states: ``[B, L, E]``, read in place of the tokens' embeddings; None to read these.
            decoder_ids: int64 ``[B, Q]``, what the decoder of an encoder-decoder reads; else None.
            num_layers: number of last layers, with an encoder only.

        Returns:
            ``[B, K, num_layers * H]``, the lowest of the layers first.
        """
        if token_states is None:
            token_states = self.embed_tokens(input_ids)
        if self.family.form == "decoder":
            places = (attention_mask.cumsum(dim=1) - 1).clamp_min(0)
            output = self.encoder(
                inputs_embeds=token_states, attention_mask=attention_mask, position_ids=places, use_cache=False
            )
            return gather_positions(output.last_hidden_state, positions)
        if decoder_ids is not None:
            text = self.model.get_encoder()(inputs_embeds=token_states, attention_mask=attention_mask)
            output = self.model.get_decoder()(
                inputs_embeds=self.embed_tokens(decoder_ids), encoder_hidden_states=text.last_hidden_state,
                encoder_attention_mask=attention_mask, use_cache=False,
            )  # fmt: skip
            return gather_positions(output.last_hidden_state, positions)
        if not self.family.is_bert_like:
            output = self.encoder(
                inputs_embeds=token_states, attention_mask=attention_mask, output_hidden_states=num_layers > 1
            )
            last = output.hidden_states[-num_layers:] if num_layers > 1 else [output.last_hidden_state]
            return torch.cat([gather_positions(hidden_BLH, positions) for hidden_BLH in last], dim=-1)
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
                found.append(gather_positions(hidden_BLH, positions))
        return torch.cat([*found, layer_at_positions(last_layer, hidden_BLH, mask, positions)], dim=-1)

    def embed(self, token_states: Tensor, position_ids: Tensor, token_types: Tensor) -> Tensor:
        """Return the input of the first layer, ``[B, L, H]``; with ``bert`` only.

        Args:
            token_states: embeddings of tokens or of anything in their place, ``[B, L, H]``.
            position_ids: int64 ``[B, L]``.
            token_types: int64 ``[B, L]``.
        """
        embedded: Tensor = self.encoder.embeddings(
            inputs_embeds=token_states, position_ids=position_ids, token_type_ids=token_types
        )
        return embedded

    def attend(self, hidden: Tensor, mask: Tensor, past: Sequence[KeysValues] = ()) -> tuple[Tensor, list[KeysValues]]:
        """Run all layers over new positions, which attend to each other and to earlier positions; with ``bert`` only.

        Args:
            hidden: the new positions, as :meth:`embed` returns them, ``[B, Q, H]``.
            mask: bool ``[B, Q, P + Q]``, True where a new position attends to an earlier or, after these, a new one.
            past: keys and values of the P earlier positions, a pair a layer.

        Returns:
            States ``[B, Q, H]`` of the last layer, and the keys and values of the new positions.
        """
        own = []
        for index, layer in enumerate(self.encoder.encoder.layer):
            keys, values = keys_values(layer.attention.self, hidden)
            own.append((keys, values))
            if past:
                keys, values = (torch.cat(pair, dim=2) for pair in zip(past[index], (keys, values), strict=True))
            hidden = attend_from(layer, hidden, keys, values, mask[:, None])
        return hidden, own

    def transform(self, states: Tensor) -> Tensor:
        """Apply the head's transform to states ``[..., H]``: ``[..., E]``; unchanged where the family has none."""
        return self.family.transform(self.model, states)

    def token_logits(self, states: Tensor) -> Tensor:
        """Return the scores of all tokens, ``[..., T]``, for transformed states ``[..., E]``."""
        known = F.linear(states, self.output_matrix, self.output_bias)
        if len(self.new_rows) == 0:
            return known
        return torch.cat([known, F.linear(states, self.new_output_rows, self.new_bias)], dim=-1)
