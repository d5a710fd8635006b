"""Decoders and encoder-decoders: where their slots are, what these see, and the text's term of the loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import toy_examples
from family_backbones import DECODERS, ENCODER_DECODERS, make_ptmt, opened
from family_models import save_family
from padded_texts import TEXTS
from torch import Tensor

from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.models.ptmt.template import Template
from ptmt_lightning.taxonomy import Taxonomy


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
    stock = model.backbone.merged()(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss
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
    examples = toy_examples(model.tokenizer, toy_taxonomy)
    batch = model.collator(training=True)(examples)
    assert batch.decoder_ids is not None
    labels = torch.full_like(batch.decoder_ids, -100)
    rows, columns = batch.mlm_index // batch.positions.shape[1], batch.positions.flatten()[batch.mlm_index]
    labels[rows, columns] = batch.mlm_ids
    stock = model.backbone.merged()(
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


def test_a_decoder_needs_a_token_to_begin_with(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    _, tokenizer, longest = opened(tmp_path, "gpt2")
    tokenizer.bos_token = tokenizer.eos_token = None
    with pytest.raises(ValueError, match=r"has neither a token for the beginning of a text nor one for its end"):
        Template.add_to(tokenizer, toy_taxonomy, num_prompt_tokens=1, max_length=longest, form="decoder")
