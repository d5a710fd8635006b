"""The folder of a trained PTMT holds the same model, and says how to use it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ptmt_settings, tiny_source
from small_ptmt import TEXTS, make, randomise, toy_batch
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertForMaskedLM, BertTokenizer

from ptmt_lightning.backbones import Backbone, Pretrained
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.taxonomy import Taxonomy


@pytest.fixture
def exported(tmp_path: Path) -> tuple[PTMT, Path]:
    """A model with non-trivial biases, and its folder."""
    model = make()
    randomise(model)
    folder = tmp_path / "model"
    folder.mkdir()
    model.save_pretrained(folder)
    return model, folder


def test_exported_model_gives_the_same_label_scores(exported: tuple[PTMT, Path]) -> None:
    model, folder = exported
    opened = AutoModelForMaskedLM.from_pretrained(folder).eval()
    assert isinstance(opened, BertForMaskedLM)
    batch = toy_batch(model, training=False)
    stock = opened(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    tokenizer = AutoTokenizer.from_pretrained(folder)
    columns = []
    for name, level in zip(model.taxonomy.names, model.taxonomy.levels, strict=True):
        token = tokenizer.convert_tokens_to_ids(f"[LABEL_{name}]")
        columns.append(stock[torch.arange(len(TEXTS)), batch.positions[:, level - 1], token])
    torch.testing.assert_close(torch.stack(columns, dim=1), model(batch), rtol=1e-5, atol=1e-5)


def test_exported_weights_are_bit_identical(exported: tuple[PTMT, Path]) -> None:
    model, folder = exported
    opened = AutoModelForMaskedLM.from_pretrained(folder)
    ours, theirs = model.backbone.merged().state_dict(), opened.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_exported_tokenizer_reads_text_as_the_original(exported: tuple[PTMT, Path]) -> None:
    model, folder = exported
    texts = [*TEXTS, "M N [MASK] o", "x [LABEL_A] y [P1]", "unseen words zyx", "tab\tand\nline"]
    arguments: dict[str, Any] = {"split_special_tokens": True, "add_special_tokens": False}
    opened = AutoTokenizer.from_pretrained(folder)
    before_template: BertTokenizer = tiny_source().load(TEXTS)[1]  # type: ignore[assignment]
    ids = opened(texts, **arguments)["input_ids"]
    assert ids == model.tokenizer(texts, **arguments)["input_ids"]
    assert ids == before_template(texts, **arguments)["input_ids"]
    assert len(opened) == len(model.tokenizer)


def test_exported_folder_says_how_to_use_the_model(exported: tuple[PTMT, Path]) -> None:
    model, folder = exported
    settings = json.loads((folder / "ptmt.json").read_text())
    template = json.loads(json.dumps(asdict(model.template)))
    assert settings["template"] == template
    assert (settings["thresholds"], settings["prune"]) == ([0.5, 0.5, 0.5], True)
    assert "threshold" not in settings
    assert Taxonomy.from_json(folder / "taxonomy.json").names == model.taxonomy.names


def test_exported_folder_without_its_description_is_refused_as_a_backbone(exported: tuple[PTMT, Path]) -> None:
    model, folder = exported
    (folder / "taxonomy.json").unlink()
    backbone, tokenizer, max_length = Pretrained(name=str(folder)).load([])
    assert isinstance(backbone, Backbone)
    with pytest.raises(ValueError, match=r"already has template tokens such as '\[P1\]'"):
        PTMT(taxonomy=model.taxonomy, backbone=backbone, tokenizer=tokenizer, max_length=max_length, **ptmt_settings())


def test_all_files_have_the_mode_of_the_umask(exported: tuple[PTMT, Path]) -> None:
    assert len({path.stat().st_mode for path in exported[1].iterdir()}) == 1
