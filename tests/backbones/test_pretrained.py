"""Folders of a pretrained model, and everything that can be wrong with one."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_source
from padded_texts import TEXTS, padded_batch
from transformers import BloomConfig, BloomForCausalLM, PegasusConfig, PegasusForConditionalGeneration, PreTrainedModel

from ptmt_lightning.backbones import Backbone, Pretrained


def saved(folder: Path, model: PreTrainedModel | None = None) -> Path:
    """A folder with a tiny model (BERT unless given) and its tokenizer."""
    backbone, tokenizer, _ = tiny_source().load(TEXTS)
    (model or backbone.model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_saved_folder_opens_with_the_same_weights_and_tokens(tmp_path: Path) -> None:
    backbone, tokenizer, max_length = tiny_source().load(TEXTS)
    with torch.no_grad():
        backbone.output_bias.normal_()
    backbone.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    opened, opened_tokenizer, opened_length = Pretrained(name=str(tmp_path)).load([])
    assert opened_length == max_length == 32
    assert opened_tokenizer.get_vocab() == tokenizer.get_vocab()
    assert opened_tokenizer(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    ours, theirs = backbone.state_dict(), opened.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_opened_model_is_in_training_mode_with_dropout(tmp_path: Path) -> None:
    backbone, _, _ = Pretrained(name=str(saved(tmp_path))).load([])
    assert backbone.training
    assert backbone.model.training
    assert all(module.training for module in backbone.modules())
    batch = padded_batch()
    assert not torch.equal(backbone(*batch), backbone(*batch))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_implementation_is_the_one_asked_for(tmp_path: Path, attention: str) -> None:
    backbone, _, _ = Pretrained(name=str(saved(tmp_path)), attention=attention).load([])
    assert backbone.model.config._attn_implementation == attention


def test_half_precision_weights_open_in_float32(tmp_path: Path) -> None:
    backbone, _, _ = tiny_source().load(TEXTS)
    folder = saved(tmp_path, backbone.model.to(torch.bfloat16))
    assert Pretrained(name=str(folder)).load([])[0].token_embeddings.dtype == torch.float32


def test_smaller_max_length_is_kept(tmp_path: Path) -> None:
    assert Pretrained(name=str(saved(tmp_path)), max_length=20).load([])[2] == 20


@pytest.mark.parametrize(
    ("max_length", "message"),
    [(33, "holds 32 positions; set it to at most that"), (0, "expected an integer >= 1"), (8.5, "expected an integer")],
)
def test_bad_max_lengths_are_refused(tmp_path: Path, max_length: Any, message: str) -> None:
    folder = saved(tmp_path)
    with pytest.raises(ValueError, match=rf"^backbone\.max_length={max_length}: .*{message}"):
        Pretrained(name=str(folder), max_length=max_length).load([])


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["config.json"], "the folder has no config.json (config.json)"),
        (["*.safetensors"], "the folder has no weights (*.safetensors or pytorch_model*.bin)"),
        (["tokenizer.json", "vocab.txt"], "the folder has no tokenizer (tokenizer.json or vocab.txt or"),
    ],
)
def test_incomplete_folders_are_refused(tmp_path: Path, patterns: list[str], message: str) -> None:
    folder = saved(tmp_path)
    for pattern in patterns:
        for path in folder.glob(pattern):
            path.unlink()
    with pytest.raises(ValueError, match=re.escape(f"backbone.name={str(folder)!r}: {message}")):
        Pretrained(name=str(folder)).load([])


def test_missing_folder_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    name = str(tmp_path / "missing")
    with pytest.raises(ValueError, match=re.escape(f"backbone.name={name!r}: ")) as caught:
        Pretrained(name=name).load([])
    assert "expected a folder or hub name of a language model with config.json, weights" in str(caught.value)


def test_damaged_config_is_refused_under_its_key(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"^backbone\.name="):
        Pretrained(name=str(folder)).load([])


def tiny_bloom() -> PreTrainedModel:
    return BloomForCausalLM(BloomConfig(vocab_size=60, hidden_size=16, n_layer=1, n_head=2))


def tiny_pegasus() -> PreTrainedModel:
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    return PegasusForConditionalGeneration(PegasusConfig(vocab_size=60, d_model=16, **sizes))


@pytest.mark.parametrize(("make", "model_type"), [(tiny_bloom, "bloom"), (tiny_pegasus, "pegasus")])
def test_other_families_are_refused_with_the_list_of_supported_ones(
    tmp_path: Path, make: Callable[[], PreTrainedModel], model_type: str
) -> None:
    folder = saved(tmp_path, make())
    expected = f"model type '{model_type}' is not supported; expected one of albert, bart, bert, cam"
    with pytest.raises(ValueError, match=expected):
        Pretrained(name=str(folder)).load([])


def test_backbone_itself_refuses_other_families() -> None:
    with pytest.raises(
        ValueError, match="model type 'bloom' is not supported; expected one of albert, bart, bert, cam"
    ):
        Backbone(tiny_bloom(), trained_head=True)


def test_encoder_without_a_head_gets_one_at_the_identity_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stock: Any = tiny_source().load(TEXTS)[0].model
    folder = saved(tmp_path, stock.bert)
    with caplog.at_level(logging.WARNING, logger="ptmt_lightning"):
        backbone, _, _ = Pretrained(name=str(folder)).load([])
    dense: Any = backbone.model.cls.predictions.transform.dense
    assert torch.equal(dense.weight, torch.eye(32))
    assert dense.bias.eq(0).all()
    assert not backbone.trained_head
    assert torch.equal(backbone.token_embeddings, stock.get_input_embeddings().weight)
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder} has no trained masked-LM head: a new one starts at the identity"
    ]


def test_model_with_a_head_keeps_it_and_warns_of_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = saved(tmp_path)
    with caplog.at_level(logging.WARNING):
        backbone, _, _ = Pretrained(name=str(folder)).load([])
    dense: Any = backbone.model.cls.predictions.transform.dense
    assert not torch.equal(dense.weight, torch.eye(32))
    assert backbone.trained_head
    assert not caplog.records
