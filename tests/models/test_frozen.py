"""The linear head on a frozen encoder: what it reads, what is trained, and its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TOY_DOCUMENTS, TOY_EDGES, tiny_source, toy_examples
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer

from ptmt_lightning.backbones import Backbone
from ptmt_lightning.models.encoder import TextBatch
from ptmt_lightning.models.frozen import FrozenEncoder
from ptmt_lightning.taxonomy import Taxonomy


def make(**changes: Any) -> FrozenEncoder:
    """A seeded one over a tiny backbone with dropout, in training mode, with a head that is not zero."""
    torch.manual_seed(0)
    backbone, tokenizer, max_length = tiny_source().load(document["text"] for document in TOY_DOCUMENTS)  # type: ignore[misc]
    shared: dict[str, Any] = {"backbone": backbone, "tokenizer": tokenizer, "max_length": max_length}
    model = FrozenEncoder(taxonomy=Taxonomy(TOY_EDGES), **shared | changes).train()
    torch.nn.init.normal_(model.head.weight)
    return model


def toy_batch(model: FrozenEncoder, **settings: Any) -> TextBatch:
    return model.collator(training=True, **settings)(toy_examples(model.tokenizer, model.taxonomy))


def test_scores_are_a_linear_layer_over_the_mean_of_all_tokens_one_text_at_a_time() -> None:
    model = make()
    for text, scores in zip(TOY_DOCUMENTS, model(toy_batch(model)), strict=True):
        inputs = model.tokenizer(text["text"], return_tensors="pt")
        with torch.no_grad():
            mean = model.backbone.model.bert(**inputs).last_hidden_state[0].mean(dim=0)
            expected = model.head.weight @ mean + model.head.bias
        torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0)


def test_padding_does_not_change_scores() -> None:
    model = make()
    wide = toy_batch(model, pad_to_multiple_of=32)
    assert wide.input_ids.shape[1] == 32 > toy_batch(model).input_ids.shape[1]
    torch.testing.assert_close(model(wide), model(toy_batch(model)), atol=1e-5, rtol=0)


def test_only_the_head_is_trained() -> None:
    model = make()
    model.loss_terms(toy_batch(model))["loss"].backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {"head.weight", "head.bias"}
    optimizer, _ = model.optimizer.build(model, 10, fused=False, new=model.head.parameters())
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in model.head.parameters()}  # weight decay reaches no other either


def test_the_backbone_has_no_dropout_in_training() -> None:
    model = make()
    assert model.training
    assert not any(module.training for module in model.backbone.modules())
    assert torch.equal(model(toy_batch(model)), model(toy_batch(model)))


def test_it_learns_the_toy_documents_by_heart_and_leaves_the_backbone_as_it_is() -> None:
    model = make()
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    batch = toy_batch(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-2, weight_decay=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        model.loss_terms(batch)["loss"].backward()
        optimizer.step()
    predicted = model.predict_nodes(model.probabilities(model(batch)))
    assert torch.equal(predicted, batch.targets)
    assert all(torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items())


def test_the_folder_has_all_that_scores_need(tmp_path: Path) -> None:
    model = make(threshold=[0.5, 0.4, 0.3])
    model.save_pretrained(tmp_path)
    encoder, tokenizer = AutoModelForMaskedLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    head = load_file(tmp_path / "head.safetensors")
    inputs = tokenizer(TOY_DOCUMENTS[2]["text"], return_tensors="pt")
    with torch.no_grad():
        mean = encoder.eval().bert(**inputs).last_hidden_state[0].mean(dim=0)
        expected = model(toy_batch(model))[2]
    torch.testing.assert_close(head["head.weight"] @ mean + head["head.bias"], expected, atol=1e-5, rtol=0)
    assert json.loads((tmp_path / "frozen.json").read_text())["thresholds"] == [0.5, 0.4, 0.3]


def test_low_rank_updates_are_refused(tiny: tuple[Backbone, Any, int]) -> None:
    pytest.importorskip("peft")
    tiny[0].add_adapters(2, 4, 0.0)
    with pytest.raises(
        ValueError, match=r"^model=frozen trains nothing of its backbone: expected backbone\.lora_rank="
    ):
        make(backbone=tiny[0])
