"""The start of a language-modelling head that no pretraining has made."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


def start_at_identity(head: Sequence[nn.Module], *, shift: float = 0.0) -> None:
    """Set a head's transform to pass the encoder's states on, where random weights would scramble them.

    Args:
        head: the modules of the transform, see :meth:`.Family.head`.
        shift: bias of the linear layer. With 0, the activation that follows loses the negative half of a state. A shift
            of 4 moves states into the part where GELU passes all on, and the normalisation takes the shift out again.

    Raises:
        ValueError: there is a shift, and the linear layer has no bias.
    """
    [dense] = [module for part in head for module in part.modules() if isinstance(module, nn.Linear)]
    with torch.no_grad():
        nn.init.eye_(dense.weight)
        if dense.bias is not None:
            nn.init.constant_(dense.bias, shift)
        elif shift:
            raise ValueError("the head's linear layer has no bias that could be shifted")
