"""A tiny backbone of each family, and PTMT on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from conftest import ptmt_settings
from family_models import save_family
from padded_texts import TEXTS
from torch import Tensor

from ptmt_lightning.backbones import FAMILIES, Backbone, Pretrained
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.taxonomy import Taxonomy

ENCODERS = [name for name, family in FAMILIES.items() if family.form == "encoder"]
DECODERS = [name for name, family in FAMILIES.items() if family.form == "decoder"]
ENCODER_DECODERS = [name for name, family in FAMILIES.items() if family.form == "encoder-decoder"]
ONE_OF_EACH = ["bert", "deberta-v2", "modernbert", "bart", "t5", "gpt2", "llama"]


def opened(folder: Path, model_type: str, **changes: Any) -> tuple[Backbone, Any, int]:
    attention = changes.pop("attention", None)
    return Pretrained(name=str(save_family(folder, model_type, TEXTS, **changes)), attention=attention).load([])


def padded_batch(backbone: Backbone) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, attention mask and positions of three texts, two of them padded."""
    torch.manual_seed(1)
    pad = backbone.model.config.pad_token_id or 0
    input_ids = torch.randint(5, len(backbone.token_embeddings), (3, 12))
    attention_mask = (torch.arange(12) < torch.tensor([12, 7, 3])[:, None]).long()
    positions = torch.tensor([[11, 0, 5, 5], [6, 2, 0, 0], [0, 1, 2, 0]])
    return input_ids.where(attention_mask.bool(), torch.tensor(pad)), attention_mask, positions


def make_ptmt(folder: Path, taxonomy: Taxonomy, **changes: Any) -> PTMT:
    backbone, tokenizer, max_length = Pretrained(name=str(folder)).load([])
    torch.manual_seed(0)
    settings = ptmt_settings(**changes)
    return PTMT(taxonomy=taxonomy, backbone=backbone, tokenizer=tokenizer, max_length=max_length, **settings)


def adapted(folder: Path, taxonomy: Taxonomy, **settings: Any) -> PTMT:
    backbone, tokenizer, max_length = Pretrained(name=str(folder), **settings).load([])
    return PTMT(taxonomy=taxonomy, backbone=backbone, tokenizer=tokenizer, max_length=max_length, **ptmt_settings())
