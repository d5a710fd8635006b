"""Each family of encoders: equal to the stock forward, trained, saved and opened again."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TOY_DOCUMENTS, ptmt_settings, toy_examples
from family_models import CONFIGS, save_family
from torch import Tensor

from ptmt_lightning.backbones import FAMILIES, Backbone, Pretrained, name_embeddings
from ptmt_lightning.data.cache import Example
from ptmt_lightning.data.document import read_documents
from ptmt_lightning.data.synthetic import write_sample
from ptmt_lightning.losses import MeanBCE
from ptmt_lightning.metrics import HierarchicalMetrics
from ptmt_lightning.models.bert_ml import BERTML
from ptmt_lightning.models.gacaps import GACaps
from ptmt_lightning.models.hbgl import HBGL
from ptmt_lightning.models.ptmt import PTMT
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.template import Template

TEXTS = [document["text"] for document in TOY_DOCUMENTS]


def opened(folder: Path, model_type: str, **changes: Any) -> tuple[Backbone, Any, int]:
    attention = changes.pop("attention", None)
    return Pretrained(name=str(save_family(folder, model_type, TEXTS, **changes)), attention=attention).load([])


def padded_batch(backbone: Backbone) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, attention mask and positions of three texts, two of them padded."""
    torch.manual_seed(1)
    pad = backbone.model.config.pad_token_id
    input_ids = torch.randint(5, len(backbone.token_embeddings), (3, 12))
    attention_mask = (torch.arange(12) < torch.tensor([12, 7, 3])[:, None]).long()
    positions = torch.tensor([[11, 0, 5, 5], [6, 2, 0, 0], [0, 1, 2, 0]])
    return input_ids.where(attention_mask.bool(), torch.tensor(pad)), attention_mask, positions


def gathered(states: Tensor, positions: Tensor) -> Tensor:
    return torch.stack([document[places] for document, places in zip(states, positions, strict=True)])


def test_every_family_is_tested() -> None:
    assert CONFIGS.keys() == FAMILIES.keys()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_logits_at_positions_equal_the_stock_forward(tmp_path: Path, model_type: str, attention: str) -> None:
    if attention == "sdpa" and model_type in ("mpnet", "deberta", "deberta-v2"):
        pytest.skip("Transformers has it not for this family")
    backbone, _, _ = opened(tmp_path, model_type, attention=attention)
    backbone.eval()
    assert backbone.model.config._attn_implementation == attention
    input_ids, attention_mask, positions = padded_batch(backbone)
    stock = backbone.model(input_ids=input_ids, attention_mask=attention_mask).logits
    ours = backbone.token_logits(backbone(input_ids, attention_mask, positions))
    torch.testing.assert_close(ours, gathered(stock, positions), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_states_of_several_layers_and_from_embeddings(tmp_path: Path, model_type: str) -> None:
    backbone, _, _ = opened(tmp_path, model_type)
    backbone.eval()
    batch = padded_batch(backbone)
    hidden = backbone.encoder(input_ids=batch[0], attention_mask=batch[1], output_hidden_states=True).hidden_states
    expected = torch.cat([gathered(layer, batch[2]) for layer in hidden[-2:]], dim=-1)
    torch.testing.assert_close(backbone.states(*batch, num_layers=2), expected, rtol=1e-5, atol=1e-5)
    tokens = F.embedding(batch[0], backbone.token_embeddings)
    torch.testing.assert_close(backbone.states(*batch, tokens), backbone.states(*batch), rtol=1e-5, atol=1e-5)
    assert backbone.states(*batch).shape == (3, 4, backbone.hidden_size)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_document_of_the_greatest_length_fits_and_padding_changes_nothing(tmp_path: Path, model_type: str) -> None:
    backbone, _, longest = opened(tmp_path, model_type)
    backbone.eval()
    offset = model_type in ("roberta", "xlm-roberta", "camembert", "mpnet")
    assert longest == 40 - (backbone.model.config.pad_token_id + 1 if offset else 0)
    torch.manual_seed(0)
    input_ids = torch.randint(5, len(backbone.token_embeddings), (1, longest))
    positions = torch.tensor([[0, 5]])
    assert backbone(input_ids, torch.ones_like(input_ids), positions).isfinite().all()
    short = input_ids[:, :9]
    padded = F.pad(short, (0, 8), value=backbone.model.config.pad_token_id)
    mask = F.pad(torch.ones_like(short), (0, 8))
    alone = backbone(short, torch.ones_like(short), positions)
    torch.testing.assert_close(backbone(padded, mask, positions), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_an_encoder_alone_gets_a_head_at_the_identity(
    tmp_path: Path, model_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="ptmt_lightning"):
        backbone, _, _ = opened(tmp_path, model_type, head=False)
    assert not backbone.trained_head
    assert "has no trained masked-LM head: a new one starts at the identity" in caplog.text
    [weight] = [p for p in backbone.head_parameters() if p.dim() == 2]
    assert torch.equal(weight, torch.eye(*weight.shape))
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="ptmt_lightning"):
        assert opened(tmp_path / "whole", model_type)[0].trained_head
    assert not caplog.records


def make_ptmt(folder: Path, taxonomy: Taxonomy, **changes: Any) -> PTMT:
    backbone, tokenizer, max_length = Pretrained(name=str(folder)).load([])
    torch.manual_seed(0)
    settings = ptmt_settings(**changes)
    return PTMT(taxonomy=taxonomy, backbone=backbone, tokenizer=tokenizer, max_length=max_length, **settings)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_new_rows_learn_in_a_tied_matrix_and_the_saved_folder_scores_bit_for_bit_the_same(
    tmp_path: Path, model_type: str, toy_taxonomy: Taxonomy
) -> None:
    model = make_ptmt(save_family(tmp_path / "backbone", model_type, TEXTS), toy_taxonomy, alpha=0.1)
    examples = toy_examples(model.tokenizer, toy_taxonomy)
    model.loss_terms(model.collator(training=True)(examples))["loss"].backward()
    rows = model.backbone.new_rows[-len(toy_taxonomy) :]
    assert model.backbone.new_rows.grad is not None
    assert model.backbone.new_bias.grad is not None
    assert model.backbone.new_rows.grad.ne(0).any(dim=1).all()
    assert model.backbone.new_bias.grad[-len(toy_taxonomy) :].ne(0).all()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert model.backbone.output_matrix is model.backbone.token_embeddings
    assert model.backbone.new_output_rows is model.backbone.new_rows

    batch = model.eval().collator(training=False)(examples)
    logits = model(batch)
    model.save_pretrained(tmp_path / "model")
    again, tokenizer, _ = Pretrained(name=str(tmp_path / "model")).load([])
    again.eval()
    assert len(again.token_embeddings) == len(tokenizer) == len(model.tokenizer)
    states = again(batch.input_ids, batch.attention_mask, batch.positions)
    assert torch.equal(again.token_embeddings[-len(toy_taxonomy) :], rows)
    assert again.output_bias is not None
    for level, part in enumerate(toy_taxonomy.level_slices):
        scores = states[:, level] @ again.token_embeddings[-len(toy_taxonomy) :][part].T
        assert torch.equal(scores + again.output_bias[-len(toy_taxonomy) :][part], logits[:, part])


@pytest.mark.slow
@pytest.mark.parametrize("model_type", FAMILIES)
def test_it_learns_64_documents_by_heart(tmp_path: Path, model_type: str) -> None:
    write_sample(tmp_path / "sample")
    taxonomy = Taxonomy.from_tsv(tmp_path / "sample/taxonomy.tsv")
    documents = list(itertools.islice(read_documents(tmp_path / "sample/train.jsonl", "train", taxonomy), 64))
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
    for step in range(num_steps):
        optimizer.zero_grad()
        model.loss_terms(batches[step % 2])["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
    metrics = HierarchicalMetrics(taxonomy)
    batch = model.eval().collator(training=False)(examples)
    probabilities = model.probabilities(model(batch)).detach()
    metrics.update(model.predict_nodes(probabilities), batch.targets, probabilities)
    assert metrics.compute().values["h_f1_micro"] > 0.99


@pytest.mark.parametrize("model_type", ["albert", "roberta", "modernbert"])
def test_prompts_of_each_document_start_at_shared_ones(tmp_path: Path, model_type: str, toy_taxonomy: Taxonomy) -> None:
    folder = save_family(tmp_path, model_type, TEXTS)
    shared, own = (make_ptmt(folder, toy_taxonomy, prompts=prompts).eval() for prompts in ("shared", "per_document"))
    batch = shared.collator(training=False)(toy_examples(shared.tokenizer, toy_taxonomy))
    torch.testing.assert_close(own(batch), shared(batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", ["roberta", "albert"])
def test_names_are_read_as_within_a_text(tmp_path: Path, model_type: str) -> None:
    backbone, tokenizer, _ = opened(tmp_path, model_type)
    ids = tokenizer("m n", add_special_tokens=False)["input_ids"]
    within = tokenizer("a m n", add_special_tokens=False)["input_ids"][1:]
    assert ids[0] != within[0]  # byte-level BPE tells a word from one after a space
    rows = name_embeddings(backbone, tokenizer, ["m_n"], reduction="sum")
    torch.testing.assert_close(rows[0], backbone.token_embeddings.detach()[within].sum(dim=0))


def test_the_template_has_the_familys_own_special_tokens(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    _, tokenizer, longest = opened(tmp_path, "roberta")
    template = Template.add_to(tokenizer, toy_taxonomy, num_prompt_tokens=2, max_length=longest)
    names = tokenizer.convert_ids_to_tokens([template.cls_id, template.sep_id, template.mask_id, template.pad_id])
    assert names == ["<s>", "</s>", "<mask>", "<pad>"]
    assert np.diff(template.prompt_ids).tolist() == [1]


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
    ]
    for system, settings in systems:
        backbone, tokenizer, longest = opened(tmp_path / system.__name__, model_type)
        model = system(backbone=backbone, tokenizer=tokenizer, max_length=longest, **shared, **settings)
        batch = model.collator(training=True)(toy_examples(tokenizer, toy_taxonomy))
        model.loss_terms(batch)["loss"].backward()
        missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert missing == []  # distributed training would wait for them
