"""HBGL: its streams position by position, decoding with and without cache, label pretraining."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import TOY_DOCUMENTS, toy_examples
from small_hbgl import make, toy_batch
from torch import Tensor

from ptmt_lightning.losses import WASL, MeanBCE
from ptmt_lightning.models import hbgl
from ptmt_lightning.models.encoder import TextBatch
from ptmt_lightning.models.hbgl import HBGL
from ptmt_lightning.taxonomy import Taxonomy

# ---- streams ----


def test_each_position_of_the_streams_sees_what_it_should() -> None:
    text = torch.tensor([[True, True, True], [True, True, False]])
    mask = hbgl.three_streams(text, 2)
    # text x3, targets x2, pseudo x2
    expected = [
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0, 1, 0],
        [1, 1, 1, 1, 0, 0, 1],
    ]
    assert mask[0].int().tolist() == expected
    assert mask[1].int().tolist() == [[*row[:2], 0, *row[3:]] for row in expected]


@pytest.mark.parametrize("slot", [0, 1, 2, 3])
def test_a_slot_depends_on_the_targets_before_it_alone(slot: int) -> None:
    model = make()
    batch = toy_batch(model)
    targets, _ = model.slot_targets(batch.targets)
    with torch.no_grad():
        states = model.slot_states(batch, targets)
        changed = targets.clone()
        changed[:, slot] = ~changed[:, slot]
        after = model.slot_states(batch, changed)
    torch.testing.assert_close(states[:, : slot + 1], after[:, : slot + 1])
    for later in range(slot + 1, model.num_slots):
        assert not torch.isclose(states[:, later], after[:, later]).all()


def test_states_are_those_of_the_stock_encoder_on_the_three_streams() -> None:
    model = make()
    batch = toy_batch(model)
    targets, _ = model.slot_targets(batch.targets)
    bert, num_slots = model.backbone.model.bert, model.num_slots
    words = bert.embeddings.word_embeddings.weight
    rows = torch.cat([model.label_rows, words[[model.tokenizer.sep_token_id]]])
    num_documents, length = batch.input_ids.shape
    lengths = batch.attention_mask.sum(dim=1, keepdim=True)
    slots = lengths + torch.arange(num_slots)
    masks = words[model.tokenizer.mask_token_id].expand(num_documents, num_slots, -1)
    seen = hbgl.three_streams(batch.attention_mask.bool(), num_slots)
    with torch.no_grad():
        expected = bert(
            inputs_embeds=torch.cat([words[batch.input_ids], targets.float() @ rows, masks], dim=1),
            token_type_ids=torch.tensor([0] * length + [1] * 2 * num_slots).expand(num_documents, -1),
            position_ids=torch.cat([torch.arange(length).expand(num_documents, -1), slots, slots], dim=1),
            attention_mask=torch.where(seen, 0.0, torch.finfo(torch.float32).min)[:, None],
        ).last_hidden_state[:, -num_slots:]
        torch.testing.assert_close(model.slot_states(batch, targets), expected, atol=1e-5, rtol=1e-5)


def test_slots_see_only_their_own_document_and_no_padding() -> None:
    model = make()
    examples = toy_examples(model.tokenizer, model.taxonomy)
    collate = model.collator(training=True)
    whole = collate(examples)
    targets, _ = model.slot_targets(whole.targets)
    with torch.no_grad():
        together = model.slot_states(whole, targets)
        for row, example in enumerate(examples):
            alone = model.slot_states(collate([example]), targets[row : row + 1])
            torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=0)


def test_targets_are_the_levels_labels_and_then_the_end(toy_taxonomy: Taxonomy) -> None:
    model = make()
    targets = torch.zeros(2, 11, dtype=torch.bool)
    targets[0, [toy_taxonomy.index[name] for name in ("A", "B", "AA")]] = True
    slots, counted = model.slot_targets(targets)
    found = [
        [{(*toy_taxonomy.names, "end")[node] for node in slot.nonzero().flatten().tolist()} for slot in row]
        for row in slots
    ]
    assert found[0][:3] == [{"A", "B"}, {"AA"}, {"end"}]
    assert found[1][0] == {"end"}  # a document without labels
    assert counted.tolist() == [[True, True, True, False], [True, False, False, False]]


def test_targets_are_shown_as_masks_half_of_the_time_in_training_only() -> None:
    model = make()
    batch = toy_batch(model)
    targets, _ = model.slot_targets(batch.targets)
    with torch.no_grad():
        assert torch.equal(model.slot_states(batch, targets), model.slot_states(batch, targets))
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model.train()
        for layer in model.backbone.model.bert.encoder.layer:
            layer.attention.self.dropout.p = 0.0
        draws = torch.stack([model.slot_states(batch, targets) for _ in range(40)])
    assert (draws[:, :, 0] == draws[0, :, 0]).all()  # the first slot sees no target
    # The second sees the first target alone: its states are of two kinds, each in about half of the draws.
    is_first_kind = torch.isclose(draws[:, :, 1], draws[0, :, 1], atol=1e-5).all(dim=-1)
    assert 0.35 < is_first_kind.float().mean() < 0.65
    assert len({tuple(state.round(decimals=3).tolist()) for state in draws[:, 0, 1]}) == 2


# ---- loss ----


def test_loss_is_the_mean_over_the_slots_that_count() -> None:
    model = make()
    batch = toy_batch(model)
    targets, counted = model.slot_targets(batch.targets)
    with torch.no_grad():
        loss = model.loss_terms(batch)["loss"]
        states = model.slot_states(batch, targets)
        rows = torch.cat([model.label_rows, model.backbone.token_embeddings[[model.tokenizer.sep_token_id]]]).double()
        logits = model.backbone.transform(states).double() @ rows.T + model.output_bias
    terms = [
        -(p.sigmoid().log() if y else (-p).sigmoid().log()).item()
        for document, keep in zip(zip(logits, targets, strict=True), counted, strict=True)
        for slot, use in enumerate(keep)
        if use
        for p, y in zip(document[0][slot], document[1][slot], strict=True)
    ]
    assert loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_every_trained_parameter_gets_a_gradient_and_embeddings_none_through_the_targets() -> None:
    model = make()
    model.loss_terms(toy_batch(model))["loss"].backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    model.zero_grad()
    contents = model._contents(model.slot_targets(toy_batch(model).targets)[0])
    assert not contents.requires_grad


def test_other_losses_are_refused() -> None:
    loss = WASL(gamma_pos=1, gamma_neg=4, margin=0.05, level_weights={"first": 1.0, "step": 0.5})
    with pytest.raises(ValueError, match=r"model=hbgl trains with .*, not with loss=WASL; set loss=mean_bce, "):
        make(label_loss=loss)
    with pytest.raises(ValueError, match=r"set loss=mean_bce, loss\.gamma=0 and loss\.weight=1"):
        make(label_loss=MeanBCE(weight=2))
    with pytest.raises(ValueError, match=r"model\.coherent=true: model=hbgl is trained level by level"):
        make(coherent=True)


def test_text_and_slots_fit_the_position_table() -> None:
    model = make()
    examples = toy_examples(model.tokenizer, model.taxonomy)
    long = examples[0]._replace(input_ids=examples[0].input_ids.repeat(20))
    batch = model.collator(training=True)([long])
    assert batch.input_ids.shape[1] == 32 - 4
    with torch.no_grad():
        assert model(batch).isfinite().all()
        assert model.loss_terms(batch)["loss"].isfinite()
    with pytest.raises(ValueError, match=r"backbone.max_length=6 leaves no room for a text; set it to 7 or more"):
        make(max_length=6)


# ---- decoding ----


def decode_without_cache(model: HBGL, batch: TextBatch) -> Tensor:
    """All slots anew at each step, through the three streams of training."""
    num_documents, num_nodes = batch.targets.shape
    labels = torch.zeros(num_documents, model.num_slots, num_nodes + 1, dtype=torch.bool)
    best = torch.zeros(num_documents, num_nodes).double()
    going = [1.0] * num_documents
    for slot in range(model.num_slots):
        scores = model._scores(model.slot_states(batch, labels))[:, slot].double()
        for row in range(num_documents):
            if going[row] < 1 or scores[row, -1] > 0:
                going[row] *= 1 / (1 + math.exp(scores[row, -1]))
            for node in range(num_nodes):
                best[row, node] = max(best[row, node], going[row] / (1 + math.exp(-scores[row, node])))
        labels[:, slot, :-1] = scores[:, :-1] > 0
    return best


@pytest.mark.parametrize("seed", range(5))
def test_decoding_with_cache_equals_decoding_without(seed: int) -> None:
    model = make()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        if seed % 2:
            model._token("sep").zero_()  # a score of 0 is no end
            model.output_bias[-1] = 0
        batch = toy_batch(model)
        scores = model(batch)
        torch.testing.assert_close(scores.double().sigmoid(), decode_without_cache(model, batch), atol=1e-5, rtol=1e-3)
    assert (scores > 0).any() or seed % 2 == 0


@pytest.mark.parametrize(("sep_scale", "expected"), [(100.0, set()), (-100.0, {0, 1, 2})])
def test_an_end_at_once_predicts_nothing_and_without_an_end_the_last_level_counts(
    sep_scale: float, expected: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make()
    calls = []

    def scores(states: Tensor) -> Tensor:
        """At slot i: the first node of level i + 1 alone, and the end as parametrised."""
        slot = len(calls)
        calls.append(slot)
        logits = torch.full((*states.shape[:-1], 12), -5.0)
        if slot < 3:
            logits[..., model.taxonomy.level_slices[slot].start] = 5.0
        logits[..., -1] = sep_scale
        return logits

    monkeypatch.setattr(model, "_scores", scores)
    with torch.no_grad():
        predicted = model.predict_nodes(model.probabilities(model(toy_batch(model))))
    starts = {model.taxonomy.level_slices[level].start for level in expected}
    assert [set(row.nonzero().flatten().tolist()) for row in predicted] == [starts] * len(TOY_DOCUMENTS)
    assert len(calls) == 4


def test_labels_after_a_predicted_end_keep_an_order_below_one_half(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make()
    logits = torch.linspace(-3, 3, 11)
    end = 2.0
    monkeypatch.setattr(model, "_scores", lambda states: torch.cat([logits, torch.tensor([end])]).expand(6, 12))
    with torch.no_grad():
        found = model(toy_batch(model)).sigmoid()
    expected = logits.sigmoid() * (1 - torch.tensor(end).sigmoid())
    torch.testing.assert_close(found, expected.expand_as(found))
    assert (found[0].argsort() == torch.arange(11)).all()
    assert not model.predict_nodes(found).any()


def test_biases_begin_at_one_label_a_level_and_at_the_pretrained_end() -> None:
    model = make()
    sep = model.tokenizer.sep_token_id
    with torch.no_grad():
        model.backbone.output_bias[sep] = 0.7
    bias = model._initial_bias()
    assert [bias[:-1].sigmoid()[nodes].sum().item() for nodes in model.taxonomy.level_slices] == pytest.approx(
        [1 / (1 + 1 / size) for size in model.taxonomy.level_sizes]
    )
    assert bias[-1].item() == pytest.approx(0.7)


@pytest.mark.slow
def test_compiled_passes_give_the_same_scores_and_loss() -> None:
    model = make()
    batch = toy_batch(model)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    with torch.no_grad():
        expected = model(batch), model.loss_terms(batch)["loss"]
        model.backbone.compile_passes()
        actual = model(batch), model.loss_terms(batch)["loss"]
    torch.testing.assert_close(actual, expected, atol=1e-3, rtol=1e-3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
