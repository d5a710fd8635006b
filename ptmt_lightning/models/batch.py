"""What the batches of all systems hold, and what their validation and test steps return.

Shape legend: ``B`` documents, ``V`` nodes.
"""

from __future__ import annotations

from typing import Protocol, TypedDict

from torch import Tensor


class Batch(Protocol):
    """The attributes that the batches of all systems have."""

    @property
    def rows(self) -> Tensor:
        """Row of each document in its split, int64 ``[B]``."""

    @property
    def targets(self) -> Tensor:
        """True nodes of each document, bool ``[B, V]``."""

    @property
    def num_text_tokens(self) -> int:
        """Number of text tokens in all documents together."""


class Evaluated(TypedDict):
    """The output of a validation or test step, for callbacks."""

    rows: Tensor  # int64 [B], row of each document in its split
    logits: Tensor  # [B, V]
    probabilities: Tensor  # float32 [B, V]
    predicted: Tensor  # bool [B, V]
    targets: Tensor  # bool [B, V]
