"""Backbones that are trained in part: frozen, or by low-rank updates."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import toy_examples
from family_backbones import ONE_OF_EACH, adapted, padded_batch
from family_models import save_family
from padded_texts import TEXTS

from ptmt_lightning.backbones import Pretrained
from ptmt_lightning.taxonomy import Taxonomy


@pytest.mark.parametrize("settings", [{"freeze": True}, {"lora_rank": 2}])
@pytest.mark.parametrize("model_type", ONE_OF_EACH)
def test_only_updates_head_and_new_tokens_are_trained(
    tmp_path: Path, model_type: str, toy_taxonomy: Taxonomy, settings: dict[str, Any]
) -> None:
    model = adapted(save_family(tmp_path / "backbone", model_type, TEXTS), toy_taxonomy, **settings)
    head = {id(parameter) for parameter in model.backbone.head_parameters()}
    new = {id(parameter) for parameter in model.backbone.new_parameters()}
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for name, parameter in trained.items():
        assert id(parameter) in head | new or "lora_" in name, name
    assert head | new <= {id(parameter) for parameter in trained.values()}
    assert any("lora_" in name for name in trained) == ("lora_rank" in settings)

    batch = model.collator(training=True)(toy_examples(model.tokenizer, toy_taxonomy))
    for _ in range(2):  # the first step moves one half of each update, which starts at 0
        model.zero_grad()
        model.loss_terms(batch)["loss"].backward()
        torch.optim.SGD(trained.values(), lr=0.1).step()
    missing = [name for name, parameter in trained.items() if parameter.grad is None or not parameter.grad.any()]
    assert missing == []  # distributed training would wait for them

    batch = model.eval().collator(training=False)(toy_examples(model.tokenizer, toy_taxonomy))
    model.save_pretrained(tmp_path / "model")
    again, _, _ = Pretrained(name=str(tmp_path / "model")).load([], whole=True)
    again.eval()
    assert again.trained_head
    ours = model.states(batch)
    theirs = again(batch.input_ids, batch.attention_mask, batch.positions, decoder_ids=batch.decoder_ids)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
    assert not any("lora" in key for key in again.model.state_dict())


def test_updates_start_at_nothing(tmp_path: Path) -> None:
    folder = save_family(tmp_path, "roberta", TEXTS)
    plain, adapting = (Pretrained(name=str(folder), lora_rank=rank).load([])[0].eval() for rank in (None, 2))
    batch = padded_batch(plain)
    torch.testing.assert_close(adapting(*batch), plain(*batch))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_rank": 0}, "backbone.lora_rank=0: expected an integer >= 1"),
        ({"lora_rank": 2, "lora_dropout": 1}, "backbone.lora_dropout=1: expected a number in [0, 1)"),
        ({"lora_rank": 2, "lora_alpha": 0}, "backbone.lora_alpha=0: expected an integer >= 1"),
        ({"lora_rank": 2, "freeze": True}, "backbone.lora_rank=2: expected null with backbone.freeze=true"),
    ],
)
def test_bad_adapters_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    folder = save_family(tmp_path, "bert", TEXTS)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        Pretrained(name=str(folder), **settings).load([])
