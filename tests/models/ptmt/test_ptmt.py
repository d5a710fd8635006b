"""PTMT: initial rows, scores, loss and the exported folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import TOY_DOCUMENTS, TOY_EDGES, equal_batches, ptmt_settings, tiny_source
from small_ptmt import NAMED_EDGES, TEXTS, label_rows, make, randomise, toy_batch

from ptmt_lightning.backbones import Pretrained
from ptmt_lightning.losses import WASL, CountScope, CrossEntropy
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.taxonomy import Taxonomy

# ---- initial rows ----


def test_label_rows_start_as_the_mean_of_the_names_pieces() -> None:
    model = make(NAMED_EDGES, label_init="label_name")
    embeddings = model.backbone.token_embeddings.detach()
    for name, row in zip(model.taxonomy.names, label_rows(model), strict=True):
        words = " ".join(re.findall(r"[^\W_]+", name))
        pieces = model.tokenizer(words, add_special_tokens=False)["input_ids"]
        if pieces:
            torch.testing.assert_close(row, embeddings[pieces].mean(dim=0))
        else:
            assert row.ne(0).any()
            assert row.std().item() == pytest.approx(0.02, rel=0.5)


def test_rows_match_the_tokens_and_biases_start_at_one_label_a_level() -> None:
    model = make()
    assert len(model.backbone.token_embeddings) + len(model.backbone.new_rows) == len(model.tokenizer)
    prompts, labels = model.backbone.new_bias.split([3, 11])
    assert prompts.eq(0).all()
    torch.testing.assert_close(labels, -torch.tensor([3.0] * 3 + [7.0] * 7 + [1.0]).log())
    assert make(label_loss=CrossEntropy()).backbone.new_bias.eq(0).all()


def test_rows_match_the_tokens_when_the_matrix_is_longer_than_the_vocabulary(tmp_path: Path) -> None:
    backbone, tokenizer, _ = tiny_source().load(TEXTS)
    backbone.model.resize_token_embeddings(len(tokenizer) + 6, mean_resizing=False)  # as padded checkpoints have
    backbone.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    backbone, tokenizer, max_length = Pretrained(name=str(tmp_path)).load([])  # type: ignore[assignment]
    known = Taxonomy([("ROOT", "m"), ("ROOT", "n"), ("m", "m n")])  # words of the vocabulary
    model = PTMT(taxonomy=known, backbone=backbone, tokenizer=tokenizer, max_length=max_length, **ptmt_settings())
    embeddings = backbone.token_embeddings.detach()
    for name, row in zip(model.taxonomy.names, label_rows(model), strict=True):
        pieces = tokenizer(name, add_special_tokens=False)["input_ids"]
        assert tokenizer.unk_token_id not in pieces
        torch.testing.assert_close(row, embeddings[pieces].mean(dim=0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 1.5}, "model.alpha=1.5: expected a number in [0, 1]"),
        ({"alpha_l1": -1}, "model.alpha_l1=-1: expected a number >= 0"),
        ({"label_init": "names"}, "model.label_init='names': expected 'label_name' or 'label_state' or 'random'"),
        ({"num_prompt_tokens": -1}, "model.num_prompt_tokens=-1: expected an integer >= 0"),
        ({"threshold": 2}, "model.threshold=2: expected a number in [0, 1]"),
        ({"threshold": None}, "model.threshold=None: expected a number in [0, 1]"),
        ({"threshold": [0.5, -0.1, 0.5]}, "model.threshold=-0.1: expected a number in [0, 1]"),
        (
            {"threshold": [0.5, 0.4]},
            "model.threshold=[0.5, 0.4]: expected a number, or 3 numbers, one a level of the taxonomy",
        ),
        ({"threshold": []}, "model.threshold=[]: expected a number, or 3 numbers, one a level of the taxonomy"),
        ({"count_scope": "document"}, "model.count_scope='document': expected 'level' or 'all'"),
        ({"tune_threshold": "document"}, "model.tune_threshold='document': expected null, 'global' or 'level'"),
        ({"tune_threshold": True}, "model.tune_threshold=True: expected null, 'global' or 'level'"),
        (
            {"tune_threshold": "level", "label_loss": CrossEntropy()},
            "model.tune_threshold=level: loss=CrossEntropy predicts the best label of a level, without a threshold; "
            "set model.tune_threshold=null",
        ),
        ({"metric_classes": "some"}, "model.metric_classes='some': expected 'present' or 'all'"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make(**change)


# ---- scores ----


@pytest.mark.parametrize("level", [0, 1, 2])
def test_scores_of_a_level_come_from_its_slot_alone(level: int) -> None:
    model = make()
    states = torch.randn(2, 5, 32)
    before = model.label_logits(states)
    states[:, level] += 1
    changed = (model.label_logits(states) != before).all(dim=0)
    assert changed.nonzero().flatten().tolist() == list(range(11))[model.taxonomy.level_slices[level]]


def test_score_is_the_inner_product_with_the_label_token_plus_its_bias() -> None:
    model = make()
    randomise(model)
    states = torch.randn(2, 4, 32)
    logits = model.label_logits(states)
    for node, level in enumerate(model.taxonomy.levels):
        token = model.tokenizer.convert_tokens_to_ids(f"[LABEL_{model.taxonomy.names[node]}]")
        score = model.backbone.token_logits(states[:, level - 1])[:, token]
        torch.testing.assert_close(logits[:, node], score)


def test_scores_and_gradients_are_to_the_bit_those_of_a_slice_a_level() -> None:
    model = make()
    randomise(model)
    states, rows = torch.randn(4, 5, 32), model.backbone.new_output_rows
    labels, bias = rows[-11:], model.backbone.new_bias[-11:]
    levels = [states[:, i] @ labels[nodes].T for i, nodes in enumerate(model.taxonomy.level_slices)]
    by_slices, logits = torch.cat(levels, dim=-1) + bias, model.label_logits(states)
    assert torch.equal(logits, by_slices)
    factors = torch.randn(4, 11)
    expected, found = (torch.autograd.grad((some * factors).sum(), rows)[0] for some in (by_slices, logits))
    assert torch.equal(found, expected)


def test_scores_do_not_depend_on_masked_text() -> None:
    model = make(mlm_probability=0.5)
    batch = toy_batch(model, training=True)
    slots_only = batch._replace(positions=batch.positions[:, :3])
    torch.testing.assert_close(model(batch), model(slots_only), rtol=1e-5, atol=1e-6)


def test_label_and_prompt_rows_are_trained() -> None:
    model = make()
    model.loss_terms(toy_batch(model, training=True))["loss"].backward()
    gradient = model.backbone.new_rows.grad
    assert gradient is not None
    assert gradient.ne(0).any(dim=1).all()


def test_prediction_is_thresholded_then_pruned() -> None:
    probabilities = torch.full((1, 11), 0.1)
    index = Taxonomy(TOY_EDGES).index
    for name, probability in {"A": 0.6, "AA": 0.4, "AAA": 0.9, "BB": 0.8, "AC": 0.55}.items():
        probabilities[0, index[name]] = probability

    def names(model: PTMT) -> set[str]:
        return {model.taxonomy.names[node] for node in model.predict_nodes(probabilities)[0].nonzero().flatten()}

    assert names(make()) == {"A", "AC"}
    assert names(make(threshold=0.3)) == {"A", "AA", "AAA", "AC"}
    assert names(make(prune=False)) == {"A", "AAA", "BB", "AC"}
    assert names(make(threshold=[0.5, 0.3, 0.95])) == {"A", "AA", "AC"}
    assert names(make(threshold=[0.7, 0.3, 0.3])) == set()
    assert names(make(threshold=[0.7, 0.3, 0.3], prune=False)) == {"AA", "AAA", "BB", "AC"}


def test_one_threshold_is_that_of_every_level() -> None:
    assert make(threshold=0.3).rule.thresholds == (0.3, 0.3, 0.3)
    assert make(threshold=[0.3, 0.4, 0.5]).rule.thresholds == (0.3, 0.4, 0.5)
    assert make(threshold=(0, 1, 0.5)).rule.thresholds == (0, 1, 0.5)


def test_exported_thresholds_are_those_in_use(tmp_path: Path) -> None:
    model = make(threshold=[0.3, 0.4, 0.5], prune=False)
    model.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "ptmt.json").read_text())
    assert (settings["thresholds"], settings["prune"]) == ([0.3, 0.4, 0.5], False)


# ---- loss ----


def test_total_is_equation_3_of_its_own_terms() -> None:
    model = make(alpha=0.3, alpha_l1=0.7, p_label=0.5)
    terms = model.loss_terms(toy_batch(model, training=True))
    assert set(terms) == {"loss", "label", "count_l1", "mlm"}
    expected = 0.3 * terms["mlm"] + 0.7 * (terms["label"] + 0.7 * terms["count_l1"])
    torch.testing.assert_close(terms["loss"], expected)


@pytest.mark.parametrize("count_scope", ["level", "all"])
def test_terms_equal_sums_over_the_slots_that_stayed_masked(count_scope: CountScope) -> None:
    model = make(
        p_label=0.5,
        count_scope=count_scope,
        label_loss=WASL(gamma_pos=0, gamma_neg=0, margin=0, level_weights=[1, 1, 1]),
    )
    randomise(model)
    batch = toy_batch(model, training=True)
    assert 0 < batch.slots.sum() < batch.slots.numel()
    logits, targets = model(batch), batch.targets.float()
    bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    label = count = torch.zeros(())
    excess_of = torch.zeros(len(TEXTS))
    for document, level in batch.slots.nonzero().tolist():
        nodes = model.taxonomy.level_slices[level]
        label = label + bce[document, nodes].sum() / len(TEXTS)
        excess = logits[document, nodes].sigmoid().sum() - targets[document, nodes].sum()
        count = count + excess.abs() / len(TEXTS)
        excess_of[document] += excess.detach()
    if count_scope == "all":
        assert excess_of.abs().mean() < count
        count = excess_of.abs().mean()
    terms = model.loss_terms(batch)
    torch.testing.assert_close(terms["label"], label)
    torch.testing.assert_close(terms["count_l1"], count)


@pytest.mark.parametrize("coherent", [False, True])
def test_slots_that_show_their_answer_are_not_trained(coherent: bool) -> None:
    model = make(p_label=0.5, alpha=0.0, coherent=coherent)
    randomise(model)
    batch = toy_batch(model, training=True)
    assert 0 < batch.slots.sum() < batch.slots.numel()
    states = model.states(batch).detach().requires_grad_()
    model.states = lambda _: states  # type: ignore[method-assign]
    model.loss_terms(batch)["loss"].backward()
    slopes_BD = states.grad[:, : batch.slots.shape[1]].abs().sum(dim=-1)
    assert (slopes_BD[~batch.slots] == 0).all()
    assert (slopes_BD[batch.slots] > 0).any()


def test_only_the_count_differs_between_scopes() -> None:
    by_level, together = make(count_scope="level", p_label=0.7), make(count_scope="all", p_label=0.7)
    batch = toy_batch(by_level, training=True)
    assert equal_batches(batch, toy_batch(together, training=True))
    for model in (by_level, together):
        torch.manual_seed(1)
        randomise(model)
    one, other = by_level.loss_terms(batch), together.loss_terms(batch)
    torch.testing.assert_close(one["label"], other["label"])
    torch.testing.assert_close(one["mlm"], other["mlm"])
    assert other["count_l1"] < one["count_l1"]
    torch.testing.assert_close(one["loss"] - other["loss"], 0.9 * (one["count_l1"] - other["count_l1"]))


@pytest.mark.parametrize("mlm_slots", [False, True])
def test_masked_lm_term_is_the_stock_loss_at_the_masked_text(mlm_slots: bool) -> None:
    model = make(mlm_probability=0.4, mlm_slots=mlm_slots)
    randomise(model)
    batch = toy_batch(model, training=True)
    columns = batch.positions.flatten()[batch.mlm_index]
    labels = torch.full_like(batch.input_ids, -100)
    labels[batch.mlm_index // batch.positions.shape[1], columns] = batch.mlm_ids
    stock = model.backbone.merged()(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=labels).loss
    torch.testing.assert_close(model.loss_terms(batch)["mlm"], stock)


@pytest.mark.parametrize("p_label", [0.5, 1.0])
def test_masked_lm_term_covers_slots_by_the_cross_entropy_of_a_true_label_token(p_label: float) -> None:
    model = make(mlm_slots=True, mlm_probability=0.0, p_label=p_label)
    randomise(model)
    batch = toy_batch(model, training=True)
    logits = model.backbone.merged()(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    log_p = logits.double().log_softmax(-1)
    drawn = iter(batch.mlm_ids.tolist())
    losses = []
    for document, example in enumerate(TOY_DOCUMENTS):
        nodes = model.taxonomy.encode(example["labels"])  # type: ignore[arg-type]
        for level, of_level in enumerate(model.taxonomy.level_slices):
            true = [model.template.first_label_id + node for node in nodes if of_level.start <= node < of_level.stop]
            if true and batch.slots[document, level]:
                token = next(drawn)
                assert token in true
                losses.append(-log_p[document, batch.positions[document, level], token].item())
    assert next(drawn, None) is None
    assert losses
    assert model.loss_terms(batch)["mlm"].item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)


def test_only_masked_lm_differs_with_slot_targets() -> None:
    plain, with_slots = make(p_label=0.7), make(p_label=0.7, mlm_slots=True)
    for model in (plain, with_slots):
        torch.manual_seed(1)
        randomise(model)
    one = plain.loss_terms(toy_batch(plain, training=True))
    other = with_slots.loss_terms(toy_batch(with_slots, training=True))
    torch.testing.assert_close(one["label"], other["label"])
    torch.testing.assert_close(one["count_l1"], other["count_l1"])
    assert not torch.isclose(one["mlm"], other["mlm"])
    torch.testing.assert_close(one["loss"] - other["loss"], 0.1 * (one["mlm"] - other["mlm"]))
    plain_logits, logits = (model(toy_batch(model, training=False)) for model in (plain, with_slots))
    torch.testing.assert_close(plain_logits, logits)


def test_alpha_zero_skips_the_masked_lm_term_and_leaves_the_text_whole() -> None:
    model = make(alpha=0.0, mlm_probability=0.5)
    trained, evaluated = (toy_batch(model, training=training) for training in (True, False))
    assert torch.equal(trained.input_ids, evaluated.input_ids)
    terms = model.loss_terms(toy_batch(model, training=True))
    assert set(terms) == {"loss", "label", "count_l1"}
    torch.testing.assert_close(terms["loss"], terms["label"] + terms["count_l1"])


def test_alpha_follows_the_head_where_it_is_not_given(tmp_path: Path) -> None:
    model = make(alpha=None)
    assert model.alpha == 0  # the head of a model from scratch is new
    assert make(alpha=0.3).alpha == 0.3
    backbone, tokenizer, _ = tiny_source().load(TEXTS)
    for part in (backbone.model, tokenizer):
        part.save_pretrained(tmp_path)
    trained, tokenizer, max_length = Pretrained(name=str(tmp_path)).load([])
    shared = {"taxonomy": Taxonomy(TOY_EDGES), "backbone": trained, "tokenizer": tokenizer, "max_length": max_length}
    assert PTMT(**shared | ptmt_settings(alpha=None)).alpha == 0.1


def test_alpha_one_leaves_the_masked_lm_term_alone() -> None:
    terms = (model := make(alpha=1.0, mlm_probability=0.5)).loss_terms(toy_batch(model, training=True))
    torch.testing.assert_close(terms["loss"], terms["mlm"])


def test_cross_entropy_works_as_the_label_loss() -> None:
    model = make(label_loss=CrossEntropy())
    terms = model.loss_terms(toy_batch(model, training=True))
    terms["loss"].backward()
    assert all(term.isfinite() for term in terms.values())


# ---- what is trained at which rate ----


@pytest.mark.parametrize("prompts", ["shared", "per_document"])
def test_new_rows_and_parameters_are_those_not_pretrained(prompts: str) -> None:
    """With a learning rate of 0 everything stands still, except by a factor: one of 0 stops the new ones alone."""
    moved = []
    for factor in (0, 1):
        optimizer = LinearAdamW(learning_rate=0.1, new_rate_factor=factor, weight_decay=0.01, warmup_ratio=0)
        model = make(optimizer=optimizer, prompts=prompts)
        model._trainer = SimpleNamespace(estimated_stepping_batches=10, precision="32-true")
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        adamw = model.configure_optimizers()["optimizer"]
        model.loss_terms(toy_batch(model, training=True))["loss"].backward()
        adamw.step()
        moved.append({name: parameter.detach() != before[name] for name, parameter in model.named_parameters()})
    stopped, free = moved
    for name, changes in stopped.items():
        if name.startswith("backbone.new_"):
            assert not changes.any(), name
            assert free[name].any(), name
        elif name.startswith("document_prompts"):
            assert not changes.any(), name
            assert free["document_prompts.outer.weight"].any()
        else:
            assert torch.equal(changes, free[name]), name
