"""Pretrained language models behind one small interface; README.md says how to add a family."""

from ptmt_lightning.backbones.backbone import Backbone, KeysValues, name_embeddings
from ptmt_lightning.backbones.families import FAMILIES
from ptmt_lightning.backbones.sources import (
    FromScratch,
    Pretrained,
    quiet_transformers,
    word_tokenizer,
)

__all__ = [
    "FAMILIES", "Backbone", "FromScratch", "KeysValues", "Pretrained", "name_embeddings", "quiet_transformers",
    "word_tokenizer",
]  # fmt: skip
