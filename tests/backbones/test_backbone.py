"""Backbones against the stock Transformers forward, and everything that can be wrong with a folder."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TOY_DOCUMENTS, tiny_source
from torch import Tensor
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    BloomConfig,
    BloomForCausalLM,
    PegasusConfig,
    PegasusForConditionalGeneration,
    PreTrainedModel,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ptmt_lightning.backbones import Backbone, Pretrained, word_tokenizer

TEXTS = [document["text"] for document in TOY_DOCUMENTS]
TinyBackbone = tuple[Backbone, BertTokenizer, int]

# A third implementation, which the backbone does not know: it has to fall back to the whole last layer.
AttentionInterface.register("sdpa_by_another_name", sdpa_attention_forward)
AttentionMaskInterface.register("sdpa_by_another_name", sdpa_mask)


def padded_batch() -> tuple[Tensor, Tensor, Tensor]:
    """Ids, attention mask and positions of three texts, two of them padded; positions unsorted and repeated."""
    generator = torch.Generator().manual_seed(0)
    input_ids = torch.randint(5, 20, (3, 12), generator=generator)
    attention_mask = (torch.arange(12) < torch.tensor([12, 7, 3])[:, None]).long()
    positions = torch.tensor([[11, 0, 5, 5], [6, 2, 0, 0], [0, 1, 2, 0]])
    return input_ids * attention_mask, attention_mask, positions


def gathered(states: Tensor, positions: Tensor) -> Tensor:
    return torch.stack([document[places] for document, places in zip(states, positions, strict=True)])


# ---- states and scores ----


@pytest.mark.parametrize("attention", ["sdpa", "eager", "sdpa_by_another_name"])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_states_equal_the_stock_forward(attention: str, num_layers: int) -> None:
    backbone, _, _ = tiny_source(num_layers=num_layers).load(TEXTS)
    backbone.eval()
    model: Any = backbone.model
    model.set_attn_implementation(attention)
    assert model.config._attn_implementation == attention
    input_ids, attention_mask, positions = padded_batch()
    hidden = model.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    expected = gathered(model.cls.predictions.transform(hidden), positions)
    states = backbone(input_ids, attention_mask, positions)
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_states_equal_the_stock_forward_without_padding(tiny: TinyBackbone, attention: str) -> None:
    backbone = tiny[0].eval()
    model: Any = backbone.model
    model.set_attn_implementation(attention)
    input_ids, _, positions = padded_batch()
    whole = torch.ones_like(input_ids)
    hidden = model.bert(input_ids=input_ids, attention_mask=whole).last_hidden_state
    expected = gathered(model.cls.predictions.transform(hidden), positions)
    torch.testing.assert_close(backbone(input_ids, whole, positions), expected, rtol=1e-5, atol=1e-5)


def test_gradients_equal_those_of_the_stock_forward(tiny: TinyBackbone) -> None:
    backbone = tiny[0].eval()
    model: Any = backbone.model
    input_ids, attention_mask, positions = padded_batch()
    backbone(input_ids, attention_mask, positions).square().sum().backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    hidden = model.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    gathered(model.cls.predictions.transform(hidden), positions).square().sum().backward()
    stock = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    torch.testing.assert_close(ours, stock, rtol=1e-3, atol=1e-4)


def test_padding_does_not_change_the_states(tiny: TinyBackbone) -> None:
    backbone = tiny[0].eval()
    input_ids, attention_mask, positions = padded_batch()
    padded = backbone(input_ids, attention_mask, positions)[1]
    alone = backbone(input_ids[1:2, :7], attention_mask[1:2, :7], positions[1:2])[0]
    torch.testing.assert_close(padded, alone, rtol=1e-5, atol=1e-5)


def test_token_logits_equal_the_stock_logits(tiny: TinyBackbone) -> None:
    backbone = tiny[0].eval()
    with torch.no_grad():
        backbone.output_bias.normal_()
    input_ids, attention_mask, positions = padded_batch()
    stock = backbone.model(input_ids=input_ids, attention_mask=attention_mask).logits
    ours = backbone.token_logits(backbone(input_ids, attention_mask, positions))
    torch.testing.assert_close(ours, gathered(stock, positions), rtol=1e-5, atol=1e-5)


def test_dropout_is_active_in_training_and_off_in_evaluation(tiny: TinyBackbone) -> None:
    backbone = tiny[0]
    batch = padded_batch()
    assert not torch.equal(backbone(*batch), backbone(*batch))
    backbone.eval()
    assert torch.equal(backbone(*batch), backbone(*batch))


def test_attention_of_the_last_layer_drops_out_too() -> None:
    backbone, _, _ = tiny_source(num_layers=1, dropout=0.0).load(TEXTS)
    batch = padded_batch()
    assert torch.equal(backbone(*batch), backbone(*batch))
    last: Any = backbone.model.bert.encoder.layer[-1]
    last.attention.self.dropout.p = 0.5
    assert not torch.equal(backbone(*batch), backbone(*batch))


# ---- new rows ----


def test_new_rows_and_biases_leave_the_old_ones(tiny: TinyBackbone) -> None:
    backbone = tiny[0]
    assert backbone.new_parameters() == []
    assert backbone.output_bias is not None
    with torch.no_grad():
        backbone.output_bias.normal_()
    embeddings, bias = backbone.token_embeddings.detach().clone(), backbone.output_bias.detach().clone()
    new = torch.randn(4, 32)
    backbone.add_token_rows(new, torch.ones(4))
    assert torch.equal(backbone.token_embeddings, torch.cat([embeddings, new]))
    assert torch.equal(backbone.output_bias, torch.cat([bias, torch.ones(4)]))
    assert backbone.model.config.vocab_size == len(embeddings) + 4
    assert all(map(torch.equal, backbone.new_parameters(), (new, torch.ones(4))))


def test_input_and_output_matrix_stay_one_after_new_rows(tiny: TinyBackbone) -> None:
    backbone = tiny[0]
    backbone.add_token_rows(torch.randn(4, 32), torch.zeros(4))
    model: Any = backbone.model
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert model.cls.predictions.decoder.bias is model.cls.predictions.bias
    names = [name for name, parameter in backbone.named_parameters() if parameter.shape[0] == model.config.vocab_size]
    assert len(names) == 2  # one matrix, one bias


def test_new_rows_receive_gradients_as_input_and_as_output(tiny: TinyBackbone) -> None:
    backbone = tiny[0].eval()
    size = len(backbone.token_embeddings)
    input_ids, attention_mask, positions = padded_batch()
    input_ids[0, :3] = torch.tensor([size, size + 2, size])
    backbone.add_token_rows(torch.randn(4, 32), torch.ones(4))
    backbone.token_logits(backbone(input_ids, attention_mask, positions)).square().sum().backward()
    ours = [parameter.grad for parameter in backbone.new_parameters()]
    backbone.zero_grad()
    model: Any = backbone.model  # of which the new rows are part
    gathered(model(input_ids, attention_mask).logits, positions).square().sum().backward()
    stock = [parameter.grad[size:] for parameter in (model.get_input_embeddings().weight, model.cls.predictions.bias)]
    torch.testing.assert_close(ours, stock, rtol=1e-4, atol=1e-4)


def test_what_was_trained_reaches_the_model_when_written(tiny: TinyBackbone) -> None:
    backbone = tiny[0].eval()
    backbone.add_token_rows(torch.randn(4, 32), torch.zeros(4))
    with torch.no_grad():
        for parameter in backbone.new_parameters():
            parameter.normal_()
    input_ids, attention_mask, positions = padded_batch()
    input_ids[0, 0] = len(backbone.token_embeddings) - 1
    ours = backbone.token_logits(backbone(input_ids, attention_mask, positions))
    backbone.write_new_rows()
    stock = gathered(backbone.model(input_ids, attention_mask).logits, positions)
    torch.testing.assert_close(ours, stock, rtol=1e-5, atol=1e-5)


def test_logits_of_the_old_tokens_are_those_from_before(tiny: TinyBackbone) -> None:
    backbone = tiny[0].eval()
    size = len(backbone.token_embeddings)
    before = backbone.token_logits(backbone(*padded_batch()))
    backbone.add_token_rows(torch.randn(4, 32), torch.zeros(4))
    after = backbone.token_logits(backbone(*padded_batch()))
    torch.testing.assert_close(after[..., :size], before)


# ---- folders ----


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


# ---- from scratch ----


def test_from_scratch_is_a_bert_of_the_asked_size() -> None:
    backbone, tokenizer, max_length = tiny_source(num_layers=3, max_length=48).load(TEXTS)
    config: Any = backbone.model.config
    assert isinstance(backbone.model, BertForMaskedLM)
    assert isinstance(config, BertConfig)
    assert (config.num_hidden_layers, config.hidden_size, max_length) == (3, 32, 48)
    assert config.vocab_size == len(backbone.token_embeddings) == len(tokenizer)
    assert config.pad_token_id == tokenizer.pad_token_id
    assert backbone.model.training


def test_vocabulary_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"backbone\.vocabulary_size=0: expected an integer >= 1"):
        tiny_source(vocabulary_size=0).load(TEXTS)


def test_vocabulary_does_not_depend_on_the_order_of_texts() -> None:
    texts = ["beta alpha", "delta gamma", "alpha epsilon zeta", "eta theta beta"]
    vocabularies = []
    for seed in range(5):
        random.Random(seed).shuffle(texts)
        vocabularies.append(word_tokenizer(texts, 4).get_vocab())
    assert all(vocabulary == vocabularies[0] for vocabulary in vocabularies)
    # alpha and beta occur twice; of the rest, the first two by spelling
    assert {word for word in vocabularies[0] if len(word.strip("#")) > 1 and "[" not in word} == {
        "alpha", "beta", "delta", "epsilon",
    }  # fmt: skip


def test_frequent_words_are_one_token_and_case_does_not_matter() -> None:
    tokenizer = word_tokenizer(["Court court ruling"], 2)
    assert tokenizer.tokenize("COURT ruling Court") == ["court", "ruling", "court"]


def test_unseen_words_are_spelt_and_unknown_characters_are_unk() -> None:
    tokenizer = word_tokenizer(["abc abc cab"], 1)
    assert tokenizer.tokenize("bca cab abc") == ["b", "##c", "##a", "c", "##a", "##b", "abc"]
    assert tokenizer.tokenize("abc xyz") == ["abc", "[UNK]"]
    assert tokenizer.decode(tokenizer("abc bca")["input_ids"]) == "[CLS] abc bca [SEP]"


def test_special_tokens_come_first() -> None:
    tokenizer = word_tokenizer(["a b"], 5)
    assert tokenizer.convert_tokens_to_ids(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]) == [0, 1, 2, 3, 4]
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))
