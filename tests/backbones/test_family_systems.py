"""The other systems: which families they work with, and which they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ptmt_settings, toy_examples
from family_backbones import opened

from ptmt_lightning.backbones import name_embeddings
from ptmt_lightning.losses import MeanBCE
from ptmt_lightning.models.bert import BERTClassifier
from ptmt_lightning.models.bert_ml import BERTML
from ptmt_lightning.models.frozen import FrozenEncoder
from ptmt_lightning.models.gacaps import GACaps
from ptmt_lightning.models.hbgl import HBGL
from ptmt_lightning.models.hpt import HPT
from ptmt_lightning.taxonomy import Taxonomy


def test_hbgl_is_for_bert_only(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    backbone, tokenizer, longest = opened(tmp_path, "roberta")
    shared = {name: value for name, value in ptmt_settings().items() if name in ("seed", "optimizer")}
    with pytest.raises(ValueError, match=r"written for model type 'bert' only, not 'roberta'; set backbone"):
        HBGL(
            taxonomy=toy_taxonomy, backbone=backbone, tokenizer=tokenizer, max_length=longest, pretraining_steps=0,
            pretraining_rate=1e-3, label_loss=MeanBCE(gamma=0, weight=1), **shared,
        )  # fmt: skip


@pytest.mark.parametrize("model_type", ["roberta", "albert", "modernbert"])
def test_the_other_systems_work_with_it_too(tmp_path: Path, model_type: str, toy_taxonomy: Taxonomy) -> None:
    shared = {name: value for name, value in ptmt_settings().items() if name in ("seed", "optimizer")}
    shared |= {"taxonomy": toy_taxonomy, "label_loss": MeanBCE(gamma=0, weight=1)}
    penalties = {"output_penalty": 1e-3, "weight_penalty": 1e-3}
    capsules = {"num_features": 8, "capsule_size": 4, "hierarchy_penalty": 1e-3, "frozen_epochs": 0}
    systems: list[tuple[Any, dict[str, Any]]] = [
        (BERTML, {"dropout": 0.0, "num_layers": 2, **penalties}),
        (GACaps, capsules),
        (FrozenEncoder, {}),
        (HPT, {}),
    ]
    for system, settings in systems:
        backbone, tokenizer, longest = opened(tmp_path / system.__name__, model_type)
        model = system(backbone=backbone, tokenizer=tokenizer, max_length=longest, **shared, **settings)
        batch = model.collator(training=True)(toy_examples(tokenizer, toy_taxonomy))
        model.loss_terms(batch)["loss"].backward()
        missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert missing == []  # distributed training would wait for them


@pytest.mark.parametrize("model_type", ["gpt2", "t5"])
def test_the_other_systems_refuse_what_is_no_encoder(tmp_path: Path, model_type: str, toy_taxonomy: Taxonomy) -> None:
    shared = {name: value for name, value in ptmt_settings().items() if name in ("seed", "optimizer")}
    backbone, tokenizer, longest = opened(tmp_path, model_type)
    for system in (BERTClassifier, FrozenEncoder):
        expected = rf"^model={system.system} reads the states of an encoder, and model type '{model_type}'"
        with pytest.raises(ValueError, match=expected):
            system(
                taxonomy=toy_taxonomy, backbone=backbone, tokenizer=tokenizer, max_length=longest,
                label_loss=MeanBCE(gamma=0, weight=1), **shared,
            )  # fmt: skip


def test_vowel_signs_are_part_of_a_name(tmp_path: Path) -> None:
    """Names in scripts with combining marks differ in them alone."""
    names = ["कि", "की", "कु", "ค่", "ค้", "a_b"]
    backbone, tokenizer, _ = opened(tmp_path, "gpt2")
    rows = name_embeddings(backbone, tokenizer, names, reduction="sum")
    assert len({tuple(row.tolist()) for row in rows}) == len(names)
    again = name_embeddings(backbone, tokenizer, ["a-b", "a  b", "a/b", "(a) b"], reduction="sum")
    for row in again:
        torch.testing.assert_close(row[None], name_embeddings(backbone, tokenizer, ["a b"], reduction="sum"))
