"""Each family of backbones: equal to the stock forward, whatever attention, padding or compiler."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import toy_examples
from family_backbones import ENCODERS, adapted, make_ptmt, opened, padded_batch
from family_models import CONFIGS, save_family
from padded_texts import TEXTS, gathered

from ptmt_lightning.backbones import FAMILIES, name_embeddings
from ptmt_lightning.models.ptmt.template import Template
from ptmt_lightning.taxonomy import Taxonomy


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


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["bert", "t5"])  # passes of our own, and Transformers'
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
