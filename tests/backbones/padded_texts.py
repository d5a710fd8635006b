"""The toy texts, a padded batch of ids for the tiny BERT, and states at some of its places."""

from __future__ import annotations

import torch
from conftest import TOY_DOCUMENTS
from torch import Tensor

TEXTS = [document["text"] for document in TOY_DOCUMENTS]


def padded_batch() -> tuple[Tensor, Tensor, Tensor]:
    """Ids, attention mask and positions of three texts, two of them padded; positions unsorted and repeated."""
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(5, 20, (3, 12), generator=generator)
    attention_mask = (torch.arange(12) < torch.tensor([12, 7, 3])[:, None]).long()
    positions = torch.tensor([[11, 0, 5, 5], [6, 2, 0, 0], [0, 1, 2, 0]])
    return input_ids * attention_mask, attention_mask, positions


def gathered(states: Tensor, positions: Tensor) -> Tensor:
    return torch.stack([document[places] for document, places in zip(states, positions, strict=True)])
