"""HPT: its graph as loops over nodes, its sequence document by document, its two losses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from conftest import TOY_DOCUMENTS, TOY_EDGES, tiny_source, toy_examples
from torch import Tensor

from ptmt_lightning.losses import ZMLCE
from ptmt_lightning.models.encoder import TextBatch
from ptmt_lightning.models.hpt import HPT
from ptmt_lightning.models.networks.hpt import GraphLayer, neighbours
from ptmt_lightning.taxonomy import Taxonomy


def make(**settings: Any) -> HPT:
    """An evaluating model on the toy taxonomy."""
    torch.manual_seed(0)
    backbone, tokenizer, max_length = tiny_source().load(str(document["text"]) for document in TOY_DOCUMENTS)
    shared: dict[str, Any] = {"backbone": backbone, "tokenizer": tokenizer, "max_length": max_length}
    return HPT(taxonomy=Taxonomy(TOY_EDGES), **shared, **settings).eval()


def toy_batch(model: HPT) -> TextBatch:
    batch: TextBatch = model.collator(training=True)(toy_examples(model.tokenizer, model.taxonomy))
    return batch


def test_a_layer_of_the_graph_is_a_loop_over_nodes_and_neighbours(toy_taxonomy: Taxonomy) -> None:
    torch.manual_seed(0)
    layer, found = GraphLayer(8).eval(), neighbours(toy_taxonomy)
    torch.nn.init.normal_(layer.bias)
    rows = torch.randn(len(found), 8)
    expected = []
    for node, row in enumerate(rows):
        near = [other for other in range(len(rows)) if found[node, other]]
        projected = [layer.project.weight @ rows[other] for other in near]
        own = layer.project.weight @ row
        scores = [(layer.of_node.weight[0] @ own + layer.of_neighbour.weight[0] @ other).item() for other in projected]
        weights = [math.exp(score if score > 0 else 0.2 * score) for score in scores]
        mixed = sum((w * other for w, other in zip(weights, projected, strict=True)), torch.zeros(8)) / sum(weights)
        total = row + mixed + layer.bias
        spread = (total - total.mean()) / (total.var(unbiased=False) + 1e-5).sqrt()
        expected.append(spread * layer.norm.weight + layer.norm.bias)
    with torch.no_grad():
        torch.testing.assert_close(layer(rows, found), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_prompts_are_neighbours_of_the_labels_of_their_level(toy_taxonomy: Taxonomy) -> None:
    found = neighbours(toy_taxonomy)
    names = [*toy_taxonomy.names, *(f"P{level}" for level in (1, 2, 3))]
    pairs = {frozenset((names[i], names[j])) for i, j in found.nonzero().tolist()}
    own = {frozenset((name,)) for name in names}
    edges = {frozenset(edge) for edge in TOY_EDGES if "ROOT" not in edge}
    levels = {
        frozenset((name, f"P{level}")) for name, level in zip(toy_taxonomy.names, toy_taxonomy.levels, strict=True)
    }
    assert pairs == own | edges | levels
    assert torch.equal(found, found.T)


def test_prompts_hear_of_their_own_level_by_one_layer_and_of_the_next_by_two() -> None:
    for num_layers, heard in ((1, [True, False, False]), (2, [True, True, False])):
        model = make(num_graph_layers=num_layers)
        with torch.no_grad():
            before = model.prompts()
            model.label_rows[: model.taxonomy.level_sizes[0]] += 1.0
            changed = [not torch.equal(*pair) for pair in zip(before, model.prompts(), strict=True)]
        assert changed == heard


def one_by_one(model: HPT, batch: TextBatch) -> Tensor:
    """The scores, each document put together by hand, without padding."""
    words, prompts = model.backbone.token_embeddings, model.prompts()
    logits = []
    for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True):
        text = words[ids[: mask.sum()]]
        added = [row for prompt in prompts for row in (prompt, model.slot_row)]
        rows = torch.stack([*text[:-1], *added, text[-1]])[None]
        states = model.backbone.model.bert(inputs_embeds=rows).last_hidden_state[0]
        slots = model.backbone.transform(states[len(text) : len(text) + len(added) : 2])
        logits.append(
            torch.cat(
                [model.label_rows[nodes] @ slot for slot, nodes in zip(slots, model.taxonomy.level_slices, strict=True)]
            )
        )
    return torch.stack(logits) + model.label_bias


def test_scores_are_those_of_each_document_alone() -> None:
    model = make()
    batch = toy_batch(model)
    assert batch.attention_mask.sum(1).unique().numel() > 1  # texts of several lengths
    with torch.no_grad():
        torch.testing.assert_close(model(batch), one_by_one(model, batch), rtol=1e-4, atol=1e-5)


def test_a_text_at_its_longest_still_has_room_for_all_slots() -> None:
    model = make()
    examples = [
        example._replace(input_ids=example.input_ids.repeat(500))
        for example in toy_examples(model.tokenizer, model.taxonomy)
    ]
    batch = model.collator(training=False)(examples)
    assert model.fill(batch.input_ids, batch.attention_mask).attention_mask.sum(dim=1).max() == model.max_length
    assert batch.num_text_tokens == len(examples) * model.max_text_tokens


def test_the_loss_is_the_label_loss_over_documents_and_levels_and_that_of_masked_tokens() -> None:
    batch = toy_batch(model := make())
    torch.manual_seed(3)
    terms = model.loss_terms(batch)
    assert terms["loss"].item() == pytest.approx((terms["label"] + terms["mlm"]).item())
    assert terms["mlm"].item() == pytest.approx(math.log(len(model.backbone.token_embeddings)), rel=0.1)  # untrained
    torch.manual_seed(3)
    drawn = model._drawn(batch)
    changed = batch._replace(input_ids=model._masked(batch.input_ids, drawn))
    losses = ZMLCE()(model(changed), batch.targets, model.taxonomy.level_sizes)
    assert terms["label"].item() == pytest.approx(losses.sum().item() / losses.numel(), rel=1e-4)
    without = make(mlm_weight=0)
    terms = without.loss_terms(batch)
    assert terms.keys() == {"loss", "label"}
    losses = ZMLCE()(without(batch), batch.targets, without.taxonomy.level_sizes)
    assert terms["loss"].item() == pytest.approx(losses.mean().item(), rel=1e-4)


def test_masks_are_those_of_bert_and_spare_special_tokens() -> None:
    model = make()
    batch = toy_batch(model)
    lengths = batch.attention_mask.sum(dim=1)
    drawn = torch.stack([model._drawn(batch) for _ in range(300)])
    special = [*range(len(lengths))], (lengths - 1).tolist()
    assert not drawn[:, :, 0].any()
    assert not drawn[:, special[0], special[1]].any()
    assert not (drawn & (batch.attention_mask == 0)).any()
    texts = int((lengths - 2).sum())
    assert drawn.sum().item() / 300 / texts == pytest.approx(0.15, abs=0.02)
    everything = batch.attention_mask.bool()
    masked = torch.stack([model._masked(batch.input_ids, everything) for _ in range(300)])[:, everything]
    kept = (masked == batch.input_ids[everything]).float().mean().item()
    assert (masked == model.tokenizer.mask_token_id).float().mean().item() == pytest.approx(0.8, abs=0.03)
    assert kept == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("settings", [{}, {"mlm_weight": 0.0}, {"num_graph_layers": 2}])
def test_all_that_is_trained_gets_a_gradient(settings: dict[str, Any]) -> None:
    """Distributed training would wait for the others."""
    model = make(**settings).train()
    model.loss_terms(toy_batch(model))["loss"].backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    bias = model.backbone.output_bias
    assert bias is not None
    assert bias.requires_grad == (model.mlm_weight > 0)


def test_embeddings_start_from_names_and_the_slot_from_the_mask() -> None:
    model = make()
    words = model.backbone.token_embeddings
    assert torch.equal(model.slot_row, words[model.tokenizer.mask_token_id])
    initial, now = model.label_embeddings()
    assert torch.equal(initial, now)
    assert torch.equal(model.label_bias, model.rule.decision.initial_logits(model.taxonomy.level_sizes))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_graph_layers": 0}, r"^model\.num_graph_layers=0: expected an integer in \[1, 100\]"),
        ({"mlm_weight": -1.0}, r"^model\.mlm_weight=-1\.0: expected"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**settings)
