"""From data, backbone and system to a model that is ready to be trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Protocol

import lightning as L
import torch
from transformers import PreTrainedTokenizerBase

from ptmt_lightning.backbones import Backbone
from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.decisions import DecisionRule
from ptmt_lightning.models.base import HTCModel
from ptmt_lightning.training.checks import check_settings
from ptmt_lightning.training.class_weights import class_weights


class BackboneSource(Protocol):
    """Opens a backbone; may make its vocabulary from the training texts."""

    def load(self, texts: Iterable[str]) -> tuple[Backbone, PreTrainedTokenizerBase, int]:
        """Return the backbone, its tokenizer, and the largest number of tokens that a text may have."""


class BuildModel(Protocol):
    """A system's class with all of its own settings filled in."""

    def __call__(self, **shared: Any) -> HTCModel:
        """Return the model; ``shared`` are the arguments that all systems take, such as taxonomy and backbone."""


def build(
    datamodule: HTCDataModule,
    backbone: BackboneSource,
    build_model: BuildModel,
    *,
    seed: int = 0,
    compile_backbone: bool = False,
) -> HTCModel:
    """Make the model for the taxonomy of the data, and tell the data how the model cuts and batches texts.

    Args:
        datamodule: of the documents.
        backbone: opens the language model.
        build_model: a system's class, or a partial of it with settings.
        seed: of all that is drawn for the model, and of its masks and dropout unless ``build_model`` has its own.
        compile_backbone: run the backbone through ``torch.compile``.

    Raises:
        ValueError: the data, the backbone or a setting can't be used; the message says which and what to do.
    """
    check_settings(build_model)
    L.seed_everything(seed, workers=True, verbose=False)
    datamodule.prepare_data()
    encoder, tokenizer, max_length = backbone.load(datamodule.texts("train"))
    shared = {"taxonomy": datamodule.taxonomy, "backbone": encoder, "tokenizer": tokenizer, "max_length": max_length}
    if "seed" not in getattr(build_model, "keywords", ()):
        shared["seed"] = seed
    model = build_model(**shared)
    datamodule.connect(
        tokenizer=tokenizer,
        max_tokens=max_length,
        train_collator=model.collator(training=True, pad_to_multiple_of=datamodule.pad_to_multiple_of),
        eval_collator=model.collator(training=False, pad_to_multiple_of=datamodule.pad_to_multiple_of),
    )
    counts, num_documents = datamodule.label_counts("train").tolist(), datamodule.num_documents("train")
    model.label_loss.count(counts, num_documents)
    model.start_from(counts, num_documents)
    # One call on empty targets refuses settings that don't fit the taxonomy, here and not at the first step.
    nothing = torch.zeros(1, len(model.taxonomy))
    model.label_loss(nothing, nothing.bool(), model.taxonomy.level_sizes)
    if model.rule.decision.single_label:
        most, document_id, level = datamodule.most_labels_at_a_level("train")
        if most > 1:
            raise ValueError(
                f"loss={type(model.label_loss).__name__} expects at most one label a level; document {document_id} has "
                f"{most} on level {level}; set loss=wasl or loss=bce"
            )
    fit_decoding(model, datamodule)
    if model.label_loss.class_weights is not None:
        model.label_loss.weigh(class_weights(model.label_loss.class_weights, model.taxonomy, counts))
    if compile_backbone:
        model.backbone.compile_passes()
    return model


class Decides(Protocol):
    """What decides which labels are predicted."""

    rule: DecisionRule
    chooses_decoding: bool


def fit_decoding(model: Decides, datamodule: HTCDataModule) -> None:
    """Let the training documents decide, unless a setting does, whether one path is predicted, and where it may end."""
    if model.chooses_decoding and datamodule.has_one_path("train"):
        model.rule = replace(model.rule, decoding="best_path")
    if model.rule.decoding == "best_path":
        model.rule = replace(model.rule, to_leaf=datamodule.ends_at_leaves("train"))
