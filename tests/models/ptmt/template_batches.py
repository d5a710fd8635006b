"""Batches of small documents in a small template."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ptmt_lightning.data.document import Example
from ptmt_lightning.models.ptmt.collator import PTMTBatch, PTMTCollator
from ptmt_lightning.models.ptmt.template import Template

CLS, SEP, MASK, PAD = 2, 3, 4, 0
FIRST_PROMPT, FIRST_LABEL = 50, 53
LEVEL_SIZES = (3, 7, 1)  # nodes 0-2, 3-9 and 10

TEMPLATE = Template(
    form="encoder",
    prefix_ids=(CLS,),
    separator_ids=(SEP,),
    end_ids=(SEP,),
    mask_id=MASK,
    pad_id=PAD,
    prompt_ids=(50, 51, 52),
    first_label_id=FIRST_LABEL,
    level_sizes=LEVEL_SIZES,
    num_text_tokens=FIRST_PROMPT,
    max_length=24,
)
TAIL = [SEP, 50, 51, 52, MASK, MASK, MASK, SEP]


def example(text: Sequence[int], nodes: Sequence[int] = (0,), *, row: int = 0, epoch: int = 0) -> Example:
    """One tokenised document."""
    return Example(row, epoch, np.array(text, dtype=np.int32), np.array(nodes, dtype=np.int32))


def collate(examples: Sequence[Example], template: Template = TEMPLATE, **changes: Any) -> PTMTBatch:
    """A batch of a collator that masks nothing unless told."""
    arguments: dict[str, Any] = {"mlm_probability": 0.0, "p_label": 1.0, "mlm_slots": False, "seed": 0}
    return PTMTCollator(template, **arguments | changes)(examples)


def slot_tokens(batch: PTMTBatch) -> torch.Tensor:
    """What the slots hold, ``[B, D]``."""
    return batch.input_ids.gather(1, batch.positions[:, : len(LEVEL_SIZES)])


def documents(*, epoch: int = 0, first_row: int = 0, num: int = 8) -> list[Example]:
    return [example(range(10, 22), [row % 3, 3 + row % 7], row=first_row + row, epoch=epoch) for row in range(num)]
