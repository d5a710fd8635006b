"""Each family with PTMT on it: its new rows learn, and the saved folder scores the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import toy_examples
from family_backbones import make_ptmt
from family_models import save_family
from learnable import write_learnable
from padded_texts import TEXTS
from safetensors.torch import load_file

from ptmt_lightning.backbones import FAMILIES, Pretrained
from ptmt_lightning.data.document import Example, read_documents
from ptmt_lightning.metrics import HierarchicalMetrics
from ptmt_lightning.models.ptmt.collator import PTMTBatch
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.taxonomy import Taxonomy


@pytest.mark.parametrize("model_type", FAMILIES)
def test_new_rows_learn_in_a_tied_matrix_and_the_saved_folder_scores_the_same(
    tmp_path: Path, model_type: str, toy_taxonomy: Taxonomy
) -> None:
    model = make_ptmt(save_family(tmp_path / "backbone", model_type, TEXTS), toy_taxonomy, alpha=0.1)
    examples = toy_examples(model.tokenizer, toy_taxonomy)
    model.loss_terms(model.collator(training=True)(examples))["loss"].backward()
    assert model.backbone.new_rows.grad is not None
    assert model.backbone.new_bias.grad is not None
    if model.backbone.is_tied:
        assert model.backbone.new_rows.grad[-len(toy_taxonomy) :].ne(0).any(dim=1).all()
    assert model.backbone.new_output_rows.grad is not None
    assert model.backbone.new_output_rows.grad[-len(toy_taxonomy) :].ne(0).any(dim=1).all()
    prompts = torch.tensor(model.template.prompt_ids) - model.template.num_text_tokens
    assert model.backbone.new_rows.grad[prompts].ne(0).any(dim=1).all()
    assert model.backbone.new_bias.grad[-len(toy_taxonomy) :].ne(0).all()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert model.backbone.is_tied == (model_type != "llama")
    assert (model.backbone.new_output_rows is model.backbone.new_rows) == model.backbone.is_tied

    batch = model.eval().collator(training=False)(examples)
    logits = model(batch)
    model.save_pretrained(tmp_path / "model")
    again, tokenizer, _ = Pretrained(name=str(tmp_path / "model")).load([], whole=True)
    again.eval()
    assert len(again.token_embeddings) == len(tokenizer) == len(model.tokenizer)
    states = again(batch.input_ids, batch.attention_mask, batch.positions, decoder_ids=batch.decoder_ids)
    labels = again.output_matrix[-len(toy_taxonomy) :]
    assert torch.equal(again.token_embeddings[-len(toy_taxonomy) :], model.backbone.new_rows[-len(toy_taxonomy) :])
    bias = again.output_bias
    if bias is None:
        bias = load_file(tmp_path / "model/label_bias.safetensors")["bias"]
    for level, part in enumerate(toy_taxonomy.level_slices):
        scores = states[:, level] @ labels[part].T
        # Not bit for bit: the two products have other shapes, and processors add up in other orders.
        torch.testing.assert_close(scores + bias[-len(toy_taxonomy) :][part], logits[:, part], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "model_type",
    [
        name if name in ("bert", "llama", "t5") else pytest.param(name, marks=pytest.mark.slow)  # one of each form
        for name in FAMILIES
        if name != "deberta-v2"  # learns as slowly as deberta
    ],
)
def test_it_learns_64_documents_by_heart(tmp_path: Path, model_type: str) -> None:
    folder = write_learnable(tmp_path / "data")
    taxonomy = Taxonomy.from_tsv(folder / "taxonomy.tsv")
    documents = list(read_documents(folder / "train.jsonl", "train", taxonomy))
    texts = [" ".join(document.text.split()[:20]) for document in documents]
    folder = save_family(tmp_path / "backbone", model_type, texts, max_position_embeddings=128)
    model = make_ptmt(folder, taxonomy, alpha=0)
    ids = model.tokenizer(texts, add_special_tokens=False)["input_ids"]
    examples = [
        Example(row, 0, np.array(ids[row], dtype=np.int32), np.array(d.nodes, dtype=np.int32))
        for row, d in enumerate(documents)
    ]
    num_steps = 800 if model_type == "deberta-v2" else 400
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=num_steps)
    batches = [model.collator(training=True)(examples[i::2]) for i in range(2)]
    shown = model.collator(training=False)(examples)
    for step in range(num_steps):
        optimizer.zero_grad()
        model.loss_terms(batches[step % 2])["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        if step % 20 == 19 and micro_f1(model, shown) > 0.99:
            return
    assert micro_f1(model, shown) > 0.99


def micro_f1(model: PTMT, batch: PTMTBatch) -> float:
    metrics = HierarchicalMetrics(model.taxonomy)
    with torch.no_grad():
        probabilities = model.eval().probabilities(model(batch))
    model.train()
    metrics.update(model.predict_nodes(probabilities), batch.targets, probabilities)
    return metrics.compute().values["h_f1_micro"]


@pytest.mark.parametrize("model_type", ["albert", "roberta", "modernbert"])
def test_prompts_of_each_document_start_at_shared_ones(tmp_path: Path, model_type: str, toy_taxonomy: Taxonomy) -> None:
    folder = save_family(tmp_path, model_type, TEXTS)
    shared, own = (make_ptmt(folder, toy_taxonomy, prompts=prompts).eval() for prompts in ("shared", "per_document"))
    batch = shared.collator(training=False)(toy_examples(shared.tokenizer, toy_taxonomy))
    torch.testing.assert_close(own(batch), shared(batch), rtol=1e-5, atol=1e-5)
