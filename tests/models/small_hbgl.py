"""A small HBGL on the toy taxonomy, and its batches."""

from __future__ import annotations

from typing import Any

import torch
from conftest import TOY_DOCUMENTS, TOY_EDGES, tiny_source, toy_examples

from ptmt_lightning.losses import MeanBCE
from ptmt_lightning.models.encoder import TextBatch
from ptmt_lightning.models.hbgl import HBGL
from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.taxonomy import Taxonomy


def make(edges: list[tuple[str, str]] = TOY_EDGES, **changes: Any) -> HBGL:
    """A seeded one over a tiny backbone, evaluating."""
    torch.manual_seed(0)
    backbone, tokenizer, max_length = tiny_source().load(document["text"] for document in TOY_DOCUMENTS)  # type: ignore[misc]
    settings: dict[str, Any] = {
        "taxonomy": Taxonomy(edges), "backbone": backbone, "tokenizer": tokenizer, "max_length": max_length,
        "pretraining_steps": 0, "pretraining_rate": 1e-3, "label_loss": MeanBCE(), "seed": 0,
        "optimizer": LinearAdamW(learning_rate=1e-3, new_rate_factor=1, weight_decay=0.01, warmup_ratio=0.05),
    }  # fmt: skip
    model = HBGL(**settings | changes).eval()
    with torch.no_grad():  # otherwise a tiny model predicts next to nothing
        model.label_rows.mul_(30)
    return model


def toy_batch(model: HBGL) -> TextBatch:
    batch: TextBatch = model.collator(training=True)(toy_examples(model.tokenizer, model.taxonomy))
    return batch
