"""BERT's layers, computed at some positions only, which attend to all.

Shape legend: ``B`` documents, ``L`` sequence length, ``Q`` and ``K`` positions a document, ``H`` hidden size.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

KeysValues = tuple[Tensor, Tensor]  # each [B, heads, L, H / heads]


def layer_at_positions(layer: Any, hidden_BLH: Tensor, mask: Any, positions_BK: Tensor) -> Tensor:
    """Run one BERT layer with all positions as keys and values, and only the given ones as queries: ``[B, K, H]``.

    Args:
        layer: a ``BertLayer`` of Transformers.
        hidden_BLH: states of all positions.
        mask: what may be attended to, ``[B, 1, L, L]``, the same for all queries; None for all.
        positions_BK: the positions to compute, int64.
    """
    attention = layer.attention
    if attention.self.config._attn_implementation not in ("sdpa", "eager"):
        full: Tensor = layer(hidden_BLH, mask)
        return gather_positions(full, positions_BK)
    # The mask is [B, 1, L, L], and as it is not causal, all of its rows are alike.
    row = None if mask is None else mask[:, :, :1].expand(-1, -1, positions_BK.shape[1], -1)
    return attend_from(layer, gather_positions(hidden_BLH, positions_BK), *keys_values(attention.self, hidden_BLH), row)


def keys_values(attention: Any, states: Tensor) -> KeysValues:
    """Return the keys and values of a BERT layer's self-attention for states ``[B, L, H]``."""
    return _split_heads(attention, attention.key, states), _split_heads(attention, attention.value, states)


def _split_heads(attention: Any, projection: nn.Module, states: Tensor) -> Tensor:
    split: Tensor = projection(states).unflatten(-1, (attention.num_attention_heads, -1)).transpose(1, 2)
    return split


def attend_from(layer: Any, hidden: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Run one BERT layer at some positions, and return their new states ``[B, Q, H]``.

    Args:
        layer: a ``BertLayer`` of Transformers.
        hidden: states of these positions, ``[B, Q, H]``.
        keys: keys of the positions that they attend to, ``[B, heads, L, H / heads]``.
        values: values of these, ``[B, heads, L, H / heads]``.
        mask: what may be attended to, broadcastable to ``[B, heads, Q, L]``; None for all.
    """
    attention = layer.attention
    context = F.scaled_dot_product_attention(
        _split_heads(attention.self, attention.self.query, hidden),
        keys,
        values,
        attn_mask=mask,
        dropout_p=attention.self.dropout.p if layer.training else 0.0,
    )
    attended = attention.output(context.transpose(1, 2).flatten(-2), hidden)
    output: Tensor = layer.feed_forward_chunk(attended)
    return output


def gather_positions(hidden_BLH: Tensor, positions_BK: Tensor) -> Tensor:
    """Return the states ``[B, K, H]`` at some positions, int64 ``[B, K]``, of each document."""
    return hidden_BLH.gather(1, positions_BK[..., None].expand(-1, -1, hidden_BLH.shape[-1]))
