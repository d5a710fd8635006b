"""The plain head: its batches, its scores, that it learns, and its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TOY_DOCUMENTS, TOY_EDGES, tiny_source, toy_examples
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer

from ptmt_lightning.losses import WASL, CrossEntropy
from ptmt_lightning.models.bert import BERTClassifier
from ptmt_lightning.models.encoder import TextBatch
from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.taxonomy import Taxonomy

LOSS = {"gamma_pos": 0, "gamma_neg": 0, "margin": 0, "level_weights": {"first": 1.0, "step": 0.0}}


def make(**changes: Any) -> BERTClassifier:
    """A seeded one over a tiny backbone, evaluating."""
    torch.manual_seed(0)
    backbone, tokenizer, max_length = tiny_source().load(document["text"] for document in TOY_DOCUMENTS)  # type: ignore[misc]
    settings: dict[str, Any] = {
        "taxonomy": Taxonomy(TOY_EDGES), "backbone": backbone, "tokenizer": tokenizer, "max_length": max_length,
        "dropout": 0.1, "label_loss": WASL(**LOSS), "seed": 0,
        "optimizer": LinearAdamW(learning_rate=1e-3, new_rate_factor=1, weight_decay=0.01, warmup_ratio=0.05),
    }  # fmt: skip
    return BERTClassifier(**settings | changes).eval()


def toy_batch(model: BERTClassifier, **settings: Any) -> TextBatch:
    return model.collator(training=True, **settings)(toy_examples(model.tokenizer, model.taxonomy))


def test_batches_are_cls_text_sep_and_padding() -> None:
    model = make()
    batch = toy_batch(model)
    expected = model.tokenizer([d["text"] for d in TOY_DOCUMENTS], padding=True, return_tensors="pt")
    assert batch.input_ids.tolist() == expected["input_ids"].tolist()
    assert batch.attention_mask.tolist() == expected["attention_mask"].tolist()
    assert [row.nonzero().flatten().tolist() for row in batch.targets] == [
        model.taxonomy.encode(d["labels"])
        for d in TOY_DOCUMENTS  # type: ignore[arg-type]
    ]
    assert batch.num_text_tokens == int(expected["attention_mask"].sum()) - 2 * len(TOY_DOCUMENTS)


def test_long_texts_are_cut_and_padding_reaches_the_multiple() -> None:
    batch = toy_batch(make(max_length=6))
    assert batch.input_ids.shape[1] == 6
    assert (batch.input_ids[3] == make().tokenizer.sep_token_id).nonzero().flatten().tolist() == [5]
    assert toy_batch(make(), pad_to_multiple_of=8).input_ids.shape[1] % 8 == 0


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_pooled_scores_are_a_linear_layer_over_all_stock_states(pooling: str) -> None:
    model = make(pooling=pooling, num_layers=2)
    batch = toy_batch(model)
    encoder = model.backbone.model.base_model
    with torch.no_grad():
        found = encoder(batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True).hidden_states
        states = torch.cat(found[-2:], dim=-1)
        for row, mask in enumerate(batch.attention_mask.bool()):
            own = states[row, mask]
            pooled = own.mean(dim=0) if pooling == "mean" else own.max(dim=0).values
            expected = model.head.weight @ pooled + model.head.bias
            torch.testing.assert_close(model(batch)[row], expected, atol=1e-5, rtol=1e-5)
    assert model.settings()["pooling"] == pooling
    with pytest.raises(ValueError, match=r"^model\.pooling='first': expected cls, mean or max; set model\.pooling"):
        make(pooling="first")


def test_scores_are_a_linear_layer_over_the_stock_state_of_cls() -> None:
    model = make()
    batch = toy_batch(model)
    with torch.no_grad():
        states = model.backbone.model.bert(batch.input_ids, batch.attention_mask).last_hidden_state[:, 0]
        torch.testing.assert_close(model(batch), states @ model.head.weight.T + model.head.bias, atol=1e-5, rtol=0)


def test_the_loss_is_the_sum_over_nodes_and_the_mean_over_documents() -> None:
    model = make()
    batch = toy_batch(model)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        model(batch), batch.targets.float(), reduction="sum"
    ) / len(TOY_DOCUMENTS)
    assert set(model.loss_terms(batch)) == {"loss"}
    torch.testing.assert_close(model.loss_terms(batch)["loss"], expected)


def test_dropout_before_the_head_is_active_in_training_only() -> None:
    model = make(dropout=0.5)
    batch = toy_batch(model)
    assert torch.equal(model(batch), model(batch))
    model.dropout.train()
    assert not torch.equal(model(batch), model(batch))


def test_bad_dropout_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.dropout=1: expected a number in \[0, 1\)"):
        make(dropout=1)


def test_it_learns_the_toy_documents_by_heart() -> None:
    model = make().train()
    batch = toy_batch(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        model.loss_terms(batch)["loss"].backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        predicted = model.predict_nodes(model.probabilities(model(batch)))
    assert torch.equal(predicted, batch.targets)


def test_the_folder_has_all_that_scores_need(tmp_path: Path) -> None:
    model = make(threshold=[0.5, 0.4, 0.3])
    model.save_pretrained(tmp_path)
    encoder, tokenizer = AutoModelForMaskedLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    head = load_file(tmp_path / "head.safetensors")
    inputs = tokenizer([d["text"] for d in TOY_DOCUMENTS], padding=True, return_tensors="pt")
    with torch.no_grad():
        states = encoder.eval().bert(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state[:, 0]
        expected = model(toy_batch(model))
    torch.testing.assert_close(states @ head["head.weight"].T + head["head.bias"], expected, atol=1e-5, rtol=0)
    assert Taxonomy.from_json(tmp_path / "taxonomy.json").names == model.taxonomy.names
    assert json.loads((tmp_path / "bert.json").read_text())["thresholds"] == [0.5, 0.4, 0.3]


# ---- coherent scores, which every system has ----


def test_coherent_scores_are_never_above_the_parents() -> None:
    model, plain = make(coherent=True), make()
    batch = toy_batch(model)
    logits = 3 * torch.randn(len(TOY_DOCUMENTS), len(model.taxonomy))
    assert torch.equal(model(batch), plain(batch))
    assert torch.equal(model.probabilities(logits), model.taxonomy.coherent(plain.probabilities(logits)))
    assert not torch.equal(model.probabilities(logits), plain.probabilities(logits))
    # with one threshold for all levels that is what pruning leaves
    assert torch.equal(
        model.predict_nodes(model.probabilities(logits)), plain.predict_nodes(plain.probabilities(logits))
    )


def test_coherent_loss_takes_the_lowest_score_on_the_path() -> None:
    """True nodes: of all their path; others: of those on their path that are not true."""
    model, plain = make(coherent=True), make()
    targets = toy_batch(model).targets
    logits = 3 * torch.randn(targets.shape)
    effective = logits.clone()
    for row in range(len(targets)):
        for node, parents in enumerate(model.taxonomy.parents):
            path = [node]
            while parents:
                path.append(parents[0])
                parents = model.taxonomy.parents[parents[0]]
            effective[row, node] = min(logits[row, n] for n in path if targets[row, node] or not targets[row, n])
    torch.testing.assert_close(model.label_losses(logits, targets), plain.label_losses(effective, targets))
    assert (effective != logits).any()


def test_coherent_loss_has_the_slopes_of_the_scores_that_count() -> None:
    model = make(coherent=True)
    targets = torch.zeros(1, len(model.taxonomy), dtype=torch.bool)
    names = model.taxonomy.index
    targets[0, [names["A"], names["AA"]]] = True
    logits = torch.full((1, len(model.taxonomy)), -1.0)
    logits[0, [names["A"], names["AA"], names["AB"], names["BA"]]] = torch.tensor([0.0, 1.0, 2.0, 3.0])
    logits.requires_grad_()
    model.label_losses(logits, targets).sum().backward()
    assert logits.grad is not None
    slopes = dict(zip(model.taxonomy.names, logits.grad[0].tolist(), strict=True))
    assert slopes["A"] == pytest.approx(-1.0)  # for A and for AA, which A holds down
    assert slopes["AA"] == 0
    assert slopes["AB"] > 0.8  # its parent is true: no bound
    assert slopes["BA"] == 0  # B holds it down
    assert slopes["B"] > torch.tensor(-1.0).sigmoid()


def test_coherent_scores_need_labels_that_are_independent_of_each_other() -> None:
    with pytest.raises(ValueError, match=r"model\.coherent=true: loss=CrossEntropy compares the labels of a level"):
        make(coherent=True, label_loss=CrossEntropy())


def test_a_model_that_has_predicted_can_be_trained() -> None:
    model = make(coherent=True)
    with torch.inference_mode():
        model.predict_nodes(model.probabilities(model(toy_batch(model))))
    model.loss_terms(toy_batch(model))["loss"].backward()
    assert model.head.weight.grad is not None
