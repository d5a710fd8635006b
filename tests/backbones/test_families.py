"""Each family of encoders: equal to the stock forward, trained, saved and opened again."""

from __future__ import annotations

import itertools
import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TOY_DOCUMENTS, ptmt_settings, toy_examples
from family_models import CONFIGS, save_family
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import T5ForConditionalGeneration

from ptmt_lightning.backbones import FAMILIES, Backbone, Pretrained, name_embeddings
from ptmt_lightning.data.document import Example, read_documents
from ptmt_lightning.data.sample import write_sample
from ptmt_lightning.losses import MeanBCE
from ptmt_lightning.metrics import HierarchicalMetrics
from ptmt_lightning.models.bert import BERTClassifier
from ptmt_lightning.models.bert_ml import BERTML
from ptmt_lightning.models.gacaps import GACaps
from ptmt_lightning.models.hbgl import HBGL
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.models.ptmt.template import Template
from ptmt_lightning.taxonomy import Taxonomy

TEXTS = [document["text"] for document in TOY_DOCUMENTS]
ENCODERS = [name for name, family in FAMILIES.items() if family.form == "encoder"]
DECODERS = [name for name, family in FAMILIES.items() if family.form == "decoder"]
ENCODER_DECODERS = [name for name, family in FAMILIES.items() if family.form == "encoder-decoder"]


def opened(folder: Path, model_type: str, **changes: Any) -> tuple[Backbone, Any, int]:
    attention = changes.pop("attention", None)
    return Pretrained(name=str(save_family(folder, model_type, TEXTS, **changes)), attention=attention).load([])


def padded_batch(backbone: Backbone) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, attention mask and positions of three texts, two of them padded."""
    torch.manual_seed(1)
    pad = backbone.model.config.pad_token_id or 0
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
    decoder_ids, further = None, {}
    if backbone.family.form == "encoder-decoder":
        decoder_ids = torch.randint(5, len(backbone.token_embeddings), input_ids.shape)
        further = {"decoder_input_ids": decoder_ids}
    stock = backbone.model(input_ids=input_ids, attention_mask=attention_mask, **further).logits
    ours = backbone.token_logits(backbone(input_ids, attention_mask, positions, decoder_ids=decoder_ids))
    torch.testing.assert_close(ours, gathered(stock, positions), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", [name for name in FAMILIES if name not in ("mpnet", "deberta", "deberta-v2")])
def test_attention_implementations_agree(tmp_path: Path, model_type: str, toy_taxonomy: Taxonomy) -> None:
    folder = save_family(tmp_path, model_type, TEXTS)
    logits = []
    for attention in ("eager", "sdpa"):
        model = adapted(folder, toy_taxonomy, attention=attention).eval()
        torch.manual_seed(0)
        for parameter in model.backbone.new_parameters():
            torch.nn.init.normal_(parameter)
        logits.append(model(model.collator(training=False)(toy_examples(model.tokenizer, toy_taxonomy))))
    torch.testing.assert_close(logits[0], logits[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", ENCODERS)
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


@pytest.mark.parametrize("model_type", ENCODERS)
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


@pytest.mark.parametrize("model_type", ENCODERS)
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
    again, tokenizer, _ = Pretrained(name=str(tmp_path / "model")).load([])
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


@pytest.mark.slow
@pytest.mark.parametrize("model_type", [name for name in FAMILIES if name != "deberta-v2"])  # slowly, as deberta does
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
    ids = [*template.prefix_ids, *template.end_ids, template.mask_id, template.pad_id]
    names = tokenizer.convert_ids_to_tokens(ids)
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


# ---- decoders and encoder-decoders ----


def read(model: PTMT, ids: Tensor, mask: Tensor | None = None) -> list[str]:
    """Tokens of one sequence, without padding."""
    kept = ids if mask is None else ids[mask.bool()]
    return list(model.tokenizer.convert_ids_to_tokens(kept.tolist()))


def test_a_decoder_reads_the_text_first_and_the_slots_last(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    for model_type, start in (("gpt2", "<|endoftext|>"), ("llama", "<s>"), ("qwen3", "<|im_end|>")):
        model = make_ptmt(save_family(tmp_path / model_type, model_type, TEXTS), toy_taxonomy)
        batch = model.collator(training=False)(toy_examples(model.tokenizer, toy_taxonomy)[:2])
        tokens = read(model, batch.input_ids[0], batch.attention_mask[0])
        assert tokens[0] == start
        assert tokens[-6:] == ["[P1]", "[P2]", "[P3]", "[MASK]", "[MASK]", "[MASK]"]
        assert batch.input_ids[0, batch.positions[0]].tolist() == [model.template.mask_id] * 3


def test_an_encoder_decoder_has_the_slots_in_its_decoder(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    expected = {
        "bart": (["<s>"], ["[P1]", "[P2]", "[P3]", "</s>"], ["</s>", "<mask>", "<mask>", "<mask>"]),
        "t5": ([], ["[P1]", "[P2]", "[P3]", "</s>"], ["<pad>", "<extra_id_0>", "<extra_id_0>", "<extra_id_0>"]),
    }
    for model_type, (start, end, decoder) in expected.items():
        model = make_ptmt(save_family(tmp_path / model_type, model_type, TEXTS), toy_taxonomy)
        examples = toy_examples(model.tokenizer, toy_taxonomy)[:2]
        batch = model.collator(training=False)(examples)
        text = model.tokenizer.convert_ids_to_tokens(examples[0].input_ids.tolist())
        assert read(model, batch.input_ids[0], batch.attention_mask[0]) == [*start, *text, *end]
        assert batch.decoder_ids is not None
        assert read(model, batch.decoder_ids[0]) == decoder
        assert batch.positions.tolist() == [[1, 2, 3]] * 2


@pytest.mark.parametrize("model_type", [*DECODERS, *ENCODER_DECODERS])
def test_a_slot_sees_the_ones_before_it_and_none_after(tmp_path: Path, model_type: str, toy_taxonomy: Taxonomy) -> None:
    model = make_ptmt(save_family(tmp_path, model_type, TEXTS), toy_taxonomy).eval()
    batch = model.collator(training=False)(toy_examples(model.tokenizer, toy_taxonomy)[:1])
    before = model.states(batch)
    name = "input_ids" if batch.decoder_ids is None else "decoder_ids"
    changed = getattr(batch, name).clone()
    changed[0, batch.positions[0, 1]] = model.template.first_label_id
    after = model.states(batch._replace(**{name: changed}))
    same = [torch.allclose(before[0, i], after[0, i], atol=1e-6) for i in range(3)]
    assert same == [True, False, False]


@pytest.mark.parametrize("model_type", DECODERS)
def test_padding_may_be_on_either_side(tmp_path: Path, model_type: str) -> None:
    backbone, _, _ = opened(tmp_path, model_type)
    backbone.eval()
    ids = torch.randint(5, len(backbone.token_embeddings), (1, 9))
    alone = backbone(ids, torch.ones_like(ids), torch.tensor([[3, 8]]))
    mask = torch.ones_like(ids)
    right = backbone(F.pad(ids, (0, 4)), F.pad(mask, (0, 4)), torch.tensor([[3, 8]]))
    left = backbone(F.pad(ids, (4, 0)), F.pad(mask, (4, 0)), torch.tensor([[7, 12]]))
    torch.testing.assert_close(right, alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(left, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model_type", DECODERS)
def test_the_causal_term_is_the_stock_loss(tmp_path: Path, model_type: str, toy_taxonomy: Taxonomy) -> None:
    folder = save_family(tmp_path, model_type, TEXTS)
    model = make_ptmt(folder, toy_taxonomy, mlm_probability=1.0, alpha=0.5).eval()
    torch.nn.init.zeros_(model.backbone.new_bias)  # for which the model itself has no place
    batch = model.collator(training=True)(toy_examples(model.tokenizer, toy_taxonomy))
    index = torch.arange(batch.input_ids.shape[1])
    is_text = (index >= 1) & (index <= batch.text_lengths[:, None])
    labels = batch.input_ids.masked_fill(~is_text, -100)
    stock = model.backbone.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss
    torch.testing.assert_close(model.loss_terms(batch)["mlm"], stock, rtol=1e-5, atol=1e-5)


def test_a_share_of_the_text_is_asked_of_a_decoder_and_nothing_is_hidden(
    tmp_path: Path, toy_taxonomy: Taxonomy
) -> None:
    model = make_ptmt(save_family(tmp_path, "gpt2", TEXTS), toy_taxonomy, mlm_probability=0.4)
    examples = toy_examples(model.tokenizer, toy_taxonomy)
    batch, whole = model.collator(training=True)(examples), model.collator(training=False)(examples)
    assert torch.equal(batch.input_ids, whole.input_ids)
    rows, columns = batch.mlm_index // batch.positions.shape[1], batch.positions.flatten()[batch.mlm_index]
    assert 0 < len(batch.mlm_ids) < int(batch.text_lengths.sum())
    assert torch.equal(batch.input_ids[rows, columns + 1], batch.mlm_ids)


@pytest.mark.parametrize("model_type", ENCODER_DECODERS)
def test_the_denoising_term_is_the_stock_loss(tmp_path: Path, model_type: str, toy_taxonomy: Taxonomy) -> None:
    folder = save_family(tmp_path, model_type, TEXTS)
    model = make_ptmt(folder, toy_taxonomy, mlm_probability=0.4, alpha=0.5).eval()
    torch.nn.init.zeros_(model.backbone.new_bias)
    model.backbone.write_new_rows()
    examples = toy_examples(model.tokenizer, toy_taxonomy)
    batch = model.collator(training=True)(examples)
    assert batch.decoder_ids is not None
    labels = torch.full_like(batch.decoder_ids, -100)
    rows, columns = batch.mlm_index // batch.positions.shape[1], batch.positions.flatten()[batch.mlm_index]
    labels[rows, columns] = batch.mlm_ids
    stock = model.backbone.model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, decoder_input_ids=batch.decoder_ids,
        labels=labels,
    ).loss  # fmt: skip
    torch.testing.assert_close(model.loss_terms(batch)["mlm"], stock, rtol=1e-5, atol=1e-5)
    for row in range(len(examples)):  # each token is read one place after it was to be written
        written = labels[row][labels[row] != -100]
        assert torch.equal(batch.decoder_ids[row, 5 : 4 + len(written)], written[:-1])
        assert batch.decoder_ids[row, 4] == batch.decoder_ids[row, 0]
        whole = model.tokenizer.convert_ids_to_tokens(written.tolist())
        if model_type == "bart":
            text = model.tokenizer.convert_ids_to_tokens(examples[row].input_ids.tolist())
            assert whole == ["<s>", *text, "</s>"]
        elif whole:
            assert (whole[0], whole[-1]) == ("<extra_id_0>", "</s>")


@pytest.mark.parametrize("model_type", ["gpt2", "t5"])
def test_the_other_systems_refuse_what_is_no_encoder(tmp_path: Path, model_type: str, toy_taxonomy: Taxonomy) -> None:
    shared = {name: value for name, value in ptmt_settings().items() if name in ("seed", "optimizer")}
    backbone, tokenizer, longest = opened(tmp_path, model_type)
    with pytest.raises(ValueError, match=rf"^model=bert reads the states of an encoder, and model type '{model_type}'"):
        BERTClassifier(
            taxonomy=toy_taxonomy, backbone=backbone, tokenizer=tokenizer, max_length=longest, dropout=0.0,
            label_loss=MeanBCE(gamma=0, weight=1), **shared,
        )  # fmt: skip


def test_an_output_matrix_of_its_own_that_is_missing_starts_as_the_input_matrix(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="ptmt_lightning"):
        backbone, _, _ = opened(tmp_path, "llama", head=False)
    assert "has no trained output matrix" in caplog.text
    assert not backbone.trained_head
    assert torch.equal(backbone.output_matrix, backbone.token_embeddings)


# ---- trained in part ----

ONE_OF_EACH = ["bert", "deberta-v2", "modernbert", "bart", "t5", "gpt2", "llama"]


def adapted(folder: Path, taxonomy: Taxonomy, **settings: Any) -> PTMT:
    backbone, tokenizer, max_length = Pretrained(name=str(folder), **settings).load([])
    return PTMT(taxonomy=taxonomy, backbone=backbone, tokenizer=tokenizer, max_length=max_length, **ptmt_settings())


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
    again, _, _ = Pretrained(name=str(tmp_path / "model")).load([])
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


# ---- compiled ----


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ONE_OF_EACH)
def test_compiled_and_plain_passes_agree(tmp_path: Path, model_type: str, toy_taxonomy: Taxonomy) -> None:
    torch.compiler.reset()  # or the limit of compilations would be reached, and the plain pass taken
    folder = save_family(tmp_path, model_type, TEXTS)
    plain, compiled = (make_ptmt(folder, toy_taxonomy).eval() for _ in range(2))
    compiled.backbone.compile_passes()
    examples = toy_examples(plain.tokenizer, toy_taxonomy)
    for some in (examples, examples[:2]):  # of two shapes
        batch = plain.collator(training=False)(some)
        torch.testing.assert_close(compiled(batch), plain(batch), rtol=1e-4, atol=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0


# ---- what published folders have ----


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
    again, _, _ = Pretrained(name=str(tmp_path / "model")).load([])
    assert torch.equal(again.output_matrix, ptmt.backbone.output_matrix)
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


def test_a_decoder_needs_a_token_to_begin_with(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    _, tokenizer, longest = opened(tmp_path, "gpt2")
    tokenizer.bos_token = tokenizer.eos_token = None
    with pytest.raises(ValueError, match=r"has neither a token for the beginning of a text nor one for its end"):
        Template.add_to(tokenizer, toy_taxonomy, num_prompt_tokens=1, max_length=longest, form="decoder")


def test_relative_positions_may_go_further_than_in_training(tmp_path: Path) -> None:
    folder = save_family(tmp_path, "t5", TEXTS)
    assert Pretrained(name=str(folder)).load([])[2] == 512
    assert Pretrained(name=str(folder), max_length=1000).load([])[2] == 1000
