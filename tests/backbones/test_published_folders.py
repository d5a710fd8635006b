"""What published folders have: matrices apart, padded vocabularies, missing parts, longer positions."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from family_backbones import make_ptmt, opened
from family_models import save_family
from padded_texts import TEXTS
from safetensors.torch import load_file, save_file
from transformers import T5ForConditionalGeneration

from ptmt_lightning.backbones import Pretrained
from ptmt_lightning.data.document import Example
from ptmt_lightning.taxonomy import Taxonomy


def test_an_output_matrix_of_its_own_that_is_missing_starts_as_the_input_matrix(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="ptmt_lightning"):
        backbone, _, _ = opened(tmp_path, "llama", head=False)
    assert "has no trained output matrix" in caplog.text
    assert not backbone.trained_head
    assert torch.equal(backbone.output_matrix, backbone.token_embeddings)


def test_an_output_matrix_of_its_own_survives_a_padded_vocabulary(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    """As in T5 1.1: the file says untied, both matrices are there, and there are more rows than tokens."""
    folder = save_family(tmp_path / "backbone", "t5", TEXTS, tie_word_embeddings=False)
    model = T5ForConditionalGeneration.from_pretrained(folder)
    model.lm_head = torch.nn.Linear(32, model.config.vocab_size, bias=False)
    model.config.tie_word_embeddings = False
    own = model.lm_head.weight.detach().clone()
    model.resize_token_embeddings(len(own) + 7, mean_resizing=False)
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    ptmt = make_ptmt(folder, toy_taxonomy)
    assert not ptmt.backbone.is_tied
    assert torch.equal(ptmt.backbone.output_matrix[: len(own)], own)
    ptmt.save_pretrained(tmp_path / "model")
    again, _, _ = Pretrained(name=str(tmp_path / "model")).load([], whole=True)
    assert torch.equal(again.output_matrix, torch.cat([ptmt.backbone.output_matrix, ptmt.backbone.new_output_rows]))
    assert not torch.equal(again.output_matrix, again.token_embeddings)


def test_a_tokenizer_whose_new_ids_would_be_others_is_refused(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    folder = save_family(tmp_path / "backbone", "bert", TEXTS)
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.__getitem__)] += 3
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"has 3 unused ids between others, .* number its vocabulary without holes"):
        make_ptmt(folder, toy_taxonomy)


def test_a_missing_output_bias_leaves_a_trained_head(tmp_path: Path) -> None:
    folder = save_family(tmp_path, "roberta", TEXTS)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: value for name, value in weights.items() if "bias" not in name or "lm_head" not in name},
        folder / "model.safetensors",
    )
    assert Pretrained(name=str(folder)).load([])[0].trained_head is False  # its dense layer has no bias either
    save_file({name: value for name, value in weights.items() if name != "lm_head.bias"}, folder / "model.safetensors")
    assert Pretrained(name=str(folder)).load([])[0].trained_head


def test_holes_of_no_token_do_not_make_a_text_too_long(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    folder = save_family(tmp_path, "bart", TEXTS, max_position_embeddings=20)
    model = make_ptmt(folder, toy_taxonomy, num_prompt_tokens=5, mlm_probability=0.1)
    collator = model.collator(training=True)
    text = np.full(100, 300, dtype=np.int32)
    for epoch in range(300):
        batch = collator([Example(0, epoch, text, np.array([0], dtype=np.int32))])
        assert batch.input_ids.shape[1] <= 20
        assert batch.decoder_ids is not None
        assert batch.decoder_ids.shape[1] <= 20


def test_relative_positions_may_go_further_than_in_training(tmp_path: Path) -> None:
    folder = save_family(tmp_path, "t5", TEXTS)
    assert Pretrained(name=str(folder)).load([])[2] == 512
    assert Pretrained(name=str(folder), max_length=1000).load([])[2] == 1000
