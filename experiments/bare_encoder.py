"""The bare encoder of a trained model in eager mode, beside which speeds are measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer


def bare_encoder(model: Path, max_length: int) -> Callable[[Sequence[str], int], None]:
    """Return a function that reads texts, so many at a time, in their order, and computes the encoder's states.

    Args:
        model: folder of the trained model.
        max_length: number of tokens at which texts are cut.
    """
    encoder = AutoModel.from_pretrained(model, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(model)

    def read(texts: Sequence[str], size: int) -> None:
        for start in range(0, len(texts), size):
            chosen = list(texts[start : start + size])
            batch = tokenizer(chosen, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
            with torch.inference_mode():
                encoder(**batch)

    return read
