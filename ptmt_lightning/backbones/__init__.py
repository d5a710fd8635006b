"""Language models of several families behind one small interface; README.md says how to add a family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptmt_lightning.utils.lazy import lazy_names

if TYPE_CHECKING:
    from ptmt_lightning.backbones.attention import KeysValues as KeysValues
    from ptmt_lightning.backbones.backbone import Backbone as Backbone
    from ptmt_lightning.backbones.families import FAMILIES as FAMILIES
    from ptmt_lightning.backbones.label_names import name_embeddings as name_embeddings
    from ptmt_lightning.backbones.label_names import name_states as name_states
    from ptmt_lightning.backbones.new_heads import start_at_identity as start_at_identity
    from ptmt_lightning.backbones.sources import FromScratch as FromScratch
    from ptmt_lightning.backbones.sources import Pretrained as Pretrained
    from ptmt_lightning.backbones.sources import quiet_transformers as quiet_transformers
    from ptmt_lightning.backbones.vocabulary import word_tokenizer as word_tokenizer

__all__ = [
    "FAMILIES", "Backbone", "FromScratch", "KeysValues", "Pretrained", "name_embeddings", "name_states",
    "quiet_transformers", "start_at_identity", "word_tokenizer",
]  # fmt: skip

__getattr__ = lazy_names(
    __name__,
    {
        "FAMILIES": "families", "Backbone": "backbone", "FromScratch": "sources", "KeysValues": "attention",
        "Pretrained": "sources", "name_embeddings": "label_names", "name_states": "label_names",
        "quiet_transformers": "sources", "start_at_identity": "new_heads", "word_tokenizer": "vocabulary",
    },
)  # fmt: skip
