"""A backbone's states, scores and new rows against the stock Transformers forward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import tiny_source
from padded_texts import TEXTS, gathered, padded_batch
from transformers import AttentionInterface, AttentionMaskInterface, BertTokenizer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ptmt_lightning.backbones import Backbone

TinyBackbone = tuple[Backbone, BertTokenizer, int]

# A third implementation, which the backbone does not know: it has to fall back to the whole last layer.
AttentionInterface.register("sdpa_by_another_name", sdpa_attention_forward)
AttentionMaskInterface.register("sdpa_by_another_name", sdpa_mask)


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
    assert torch.equal(backbone.token_embeddings, embeddings)
    assert torch.equal(backbone.output_bias, bias)
    merged: Any = backbone.merged()
    assert torch.equal(merged.get_input_embeddings().weight, torch.cat([embeddings, new]))
    assert torch.equal(merged.cls.predictions.bias, torch.cat([bias, torch.ones(4)]))
    assert merged.config.vocab_size == len(embeddings) + 4 == backbone.model.config.vocab_size + 4
    assert all(map(torch.equal, backbone.new_parameters(), (new, torch.ones(4))))


def test_input_and_output_matrix_stay_one_after_new_rows(tiny: TinyBackbone) -> None:
    backbone = tiny[0]
    backbone.add_token_rows(torch.randn(4, 32), torch.zeros(4))
    model: Any = backbone.merged()
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    assert model.cls.predictions.decoder.bias is model.cls.predictions.bias
    names = [name for name, parameter in model.named_parameters() if parameter.shape[0] == model.config.vocab_size]
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
    model: Any = backbone.merged()
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
    input_ids[0, 0] = len(backbone.token_embeddings) + 3
    ours = backbone.token_logits(backbone(input_ids, attention_mask, positions))
    stock = gathered(backbone.merged()(input_ids, attention_mask).logits, positions)
    torch.testing.assert_close(ours, stock, rtol=1e-5, atol=1e-5)


def test_logits_of_the_old_tokens_are_those_from_before(tiny: TinyBackbone) -> None:
    backbone = tiny[0].eval()
    size = len(backbone.token_embeddings)
    before = backbone.token_logits(backbone(*padded_batch()))
    backbone.add_token_rows(torch.randn(4, 32), torch.zeros(4))
    after = backbone.token_logits(backbone(*padded_batch()))
    torch.testing.assert_close(after[..., :size], before)


def test_weights_of_earlier_versions_are_taken_without_their_rows_of_new_tokens(tiny: TinyBackbone) -> None:
    backbone = tiny[0]
    backbone.add_token_rows(torch.randn(4, 32), torch.ones(4))
    expected = {name: weight.clone() for name, weight in backbone.state_dict().items()}
    earlier = expected | {f"model.{name}": weight for name, weight in backbone.merged().state_dict().items()}
    assert earlier["model.cls.predictions.bias"].shape != expected["model.cls.predictions.bias"].shape
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_()
    backbone.load_state_dict(earlier)
    assert all(torch.equal(weight, expected[name]) for name, weight in backbone.state_dict().items())
    with pytest.raises(RuntimeError, match="size mismatch"):
        backbone.load_state_dict(earlier | {"model.cls.predictions.bias": torch.zeros(3)})


def test_merging_leaves_the_model_as_it_is(tiny: TinyBackbone) -> None:
    backbone = tiny[0].eval()
    backbone.add_token_rows(torch.randn(4, 32), torch.ones(4))
    before = {name: weight.clone() for name, weight in backbone.state_dict().items()}
    assert not backbone.merged().training
    assert all(torch.equal(weight, before[name]) for name, weight in backbone.state_dict().items())
