"""Prompts of each document's own: nothing at first, then a function of the text alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_ptmt import make, toy_batch

from ptmt_lightning.models.ptmt.module import DocumentPrompts


def trained_prompts(model: object) -> DocumentPrompts:
    """The network with weights as training could have left them."""
    prompts = model.document_prompts  # type: ignore[attr-defined]
    assert isinstance(prompts, DocumentPrompts)
    torch.manual_seed(1)
    for parameter in prompts.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return prompts


def test_at_first_they_are_the_shared_ones() -> None:
    shared, own = make(), make(prompts="per_document")
    batch = toy_batch(shared, training=False)
    torch.testing.assert_close(own(batch), shared(batch))


def test_only_the_prompts_embeddings_change_by_the_mean_of_the_text() -> None:
    model = make(prompts="per_document")
    prompts, batch = trained_prompts(model), toy_batch(model, training=False)
    before = model.backbone.embed_tokens(batch.input_ids).detach()
    with torch.no_grad():
        after = prompts(before, batch.text_lengths)
    is_prompt = torch.isin(batch.input_ids, torch.tensor(model.template.prompt_ids))
    assert torch.equal(after[~is_prompt], before[~is_prompt])
    for row, ids in enumerate(batch.input_ids):
        end = (ids == model.template.end_ids[0]).nonzero()[0]
        with torch.no_grad():
            offsets = prompts.outer(
                torch.nn.functional.gelu(prompts.inner(prompts.norm(before[row, 1:end].mean(dim=0))))
            )
        expected = before[row][is_prompt[row]] + offsets.view(-1, before.shape[-1])
        torch.testing.assert_close(after[row][is_prompt[row]], expected)


def test_padding_does_not_change_the_scores() -> None:
    model = make(prompts="per_document")
    trained_prompts(model)
    batch = toy_batch(model, training=False)
    alone = batch._replace(
        **{name: getattr(batch, name)[:1] for name in ("input_ids", "attention_mask", "text_lengths", "positions")}
    )
    width = int(alone.attention_mask.sum())
    alone = alone._replace(input_ids=alone.input_ids[:, :width], attention_mask=alone.attention_mask[:, :width])
    with torch.no_grad():
        torch.testing.assert_close(model(alone), model(batch)[:1], atol=1e-5, rtol=1e-5)


def test_they_receive_gradients() -> None:
    model = make(prompts="per_document").train()
    model.loss_terms(toy_batch(model, training=True))["loss"].backward()
    assert model.document_prompts is not None
    assert model.document_prompts.outer.weight.grad is not None
    assert model.document_prompts.outer.weight.grad.abs().sum() > 0


def test_the_folder_keeps_them(tmp_path: Path) -> None:
    model = make(prompts="per_document")
    prompts = trained_prompts(model)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "ptmt.json").read_text())["prompts"] == "per_document"
    saved = load_file(tmp_path / "prompts.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in prompts.state_dict().items())
    make().save_pretrained(tmp_path / "shared")
    assert not (tmp_path / "shared/prompts.safetensors").exists()


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.prompts='own': expected 'shared' or 'per_document'"):
        make(prompts="own")
    with pytest.raises(ValueError, match=r"model\.prompts=per_document: expected model\.num_prompt_tokens"):
        make(prompts="per_document", num_prompt_tokens=0)
