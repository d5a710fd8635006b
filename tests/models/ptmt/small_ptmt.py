"""A small PTMT on the toy taxonomy, and its batches."""

from __future__ import annotations

from typing import Any

import torch
from conftest import TOY_DOCUMENTS, TOY_EDGES, ptmt_settings, tiny_source, toy_examples
from torch import Tensor

from ptmt_lightning.models.ptmt.collator import PTMTBatch
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.taxonomy import Taxonomy

TEXTS = [document["text"] for document in TOY_DOCUMENTS]
NAMED_EDGES = [("ROOT", "Mno"), ("ROOT", "x/y_z"), ("Mno", "p & q"), ("Mno", "???")]


def make(edges: list[tuple[str, str]] = TOY_EDGES, **changes: Any) -> PTMT:
    """A seeded PTMT over a tiny backbone, evaluating."""
    torch.manual_seed(0)
    backbone, tokenizer, max_length = tiny_source().load(TEXTS)
    shared = {"taxonomy": Taxonomy(edges), "backbone": backbone, "tokenizer": tokenizer, "max_length": max_length}
    return PTMT(**shared | ptmt_settings(**changes)).eval()


def toy_batch(model: PTMT, *, training: bool) -> PTMTBatch:
    """All toy documents."""
    return model.collator(training=training)(toy_examples(model.tokenizer, model.taxonomy))


def label_rows(model: PTMT) -> Tensor:
    return model.backbone.new_rows[-len(model.taxonomy) :].detach()


def randomise(model: PTMT) -> None:
    """Give biases and norms values that training could have given them, so that nothing is 0 by default."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
