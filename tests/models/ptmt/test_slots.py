"""Where slots stand, what they start from, and the other settings of a training's start."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import TOY_DOCUMENTS, drop_digest, ptmt_settings, saved_ptmt, toy_examples
from family_models import save_family
from small_ptmt import TEXTS, label_rows, make, toy_batch
from test_warm_start import parts, warm
from transformers import AutoModelForMaskedLM

from ptmt_lightning.backbones import Pretrained
from ptmt_lightning.conditional_loss import ConditionalCrossEntropy
from ptmt_lightning.inference import Classifier
from ptmt_lightning.losses import CrossEntropy
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.models.ptmt.template import Template
from ptmt_lightning.taxonomy import Taxonomy

FORMS = [
    {"slot_place": "before"},
    {"slot_init": "cls"},
    {"slot_place": "before", "slot_init": "cls", "prompts": "per_document", "p_label": 0.5},
]


def of_family(folder: Path, family: str, taxonomy: Taxonomy, **changes: Any) -> PTMT:
    """PTMT on a small model of a family."""
    backbone, tokenizer, max_length = Pretrained(str(save_family(folder, family, TEXTS))).load([])
    settings = ptmt_settings(**changes)
    return PTMT(taxonomy=taxonomy, backbone=backbone, tokenizer=tokenizer, max_length=max_length, **settings)


# ---- the template ----


def test_slots_then_prompts_stand_before_the_text() -> None:
    model = make(slot_place="before", slot_init="cls")
    batch = toy_batch(model, training=False)
    for row, document in enumerate(TOY_DOCUMENTS):
        length = int(batch.attention_mask[row].sum())
        tokens = model.tokenizer.convert_ids_to_tokens(batch.input_ids[row, :length].tolist())
        text = model.tokenizer.tokenize(document["text"])
        assert tokens == ["[CLS]", *["[SLOT]"] * 3, "[P1]", "[P2]", "[P3]", *text, "[SEP]"]
    assert batch.positions.tolist() == [[1, 2, 3]] * len(TOY_DOCUMENTS)
    assert model.template.overhead == 2 + 3 + 3


@pytest.mark.parametrize("slot_place", ["before", "after"])
def test_only_text_is_masked_and_only_slots_show_labels(slot_place: str) -> None:
    model = make(slot_place=slot_place, slot_init="cls", mlm_probability=1.0, p_label=0.5, mlm_slots=False)
    plain, filled = toy_batch(model, training=False), toy_batch(model, training=True)
    changed = plain.input_ids != filled.input_ids
    before, after = model.template.ids_before_text, model.template.ids_after_text
    for row, length in enumerate(plain.text_lengths.tolist()):
        text = slice(len(before), len(before) + length)
        slots = set(plain.positions[row, :3].tolist())
        outside = {int(place) for place in changed[row].nonzero() if not text.start <= place < text.stop}
        assert outside <= slots
        assert filled.positions[row, 3 : 3 + length].tolist() == list(range(text.start, text.stop))
        total = len(before) + length + len(after)
        assert int(plain.attention_mask[row].sum()) == total
    assert (~filled.slots).any()
    first = model.template.first_label_id
    shown = filled.input_ids.gather(1, filled.positions[:, :3])
    assert torch.equal(shown >= first, ~filled.slots)
    assert (shown[filled.slots] == model.template.slot_id).all()


def test_scores_equal_those_of_the_whole_sequence(tmp_path: Path) -> None:
    model = make(slot_place="before", slot_init="cls").eval()
    batch = toy_batch(model, training=False)
    model.save_pretrained(tmp_path)
    whole = AutoModelForMaskedLM.from_pretrained(tmp_path)
    stock = whole(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    first = model.template.first_label_id
    levels = [
        stock[:, 1 + level, first + nodes.start : first + nodes.stop]
        for level, nodes in enumerate(model.taxonomy.level_slices)
    ]
    torch.testing.assert_close(model(batch), torch.cat(levels, dim=-1), rtol=1e-4, atol=1e-5)


def test_prompts_of_a_document_are_found_before_the_text() -> None:
    model = make(slot_place="before", prompts="per_document")
    batch = toy_batch(model, training=False)
    assert model.document_prompts is not None
    torch.nn.init.ones_(model.document_prompts.outer.bias)
    embeddings = model.backbone.embed_tokens(batch.input_ids)
    changed = (model.document_prompts(embeddings, batch.text_lengths) != embeddings).any(dim=-1)
    assert all(row.nonzero().flatten().tolist() == [4, 5, 6] for row in changed)


# ---- slots ----


def test_a_slot_token_starts_as_cls_and_leaves_the_mask_alone() -> None:
    model = make(slot_init="cls")
    assert model.template.slot_id is not None
    ids = torch.tensor([[model.template.slot_id, model.tokenizer.cls_token_id, model.tokenizer.mask_token_id]])
    slot, cls, mask = model.backbone.embed_tokens(ids)[0]
    assert torch.equal(slot, cls)
    assert not torch.equal(slot, mask)
    model.loss_terms(toy_batch(model, training=True))["loss"].backward()
    gradient = model.backbone.new_rows.grad
    assert gradient is not None
    assert gradient[model.template.slot_id - model.template.num_text_tokens].ne(0).any()


def test_slot_states_are_dropped_in_training_only() -> None:
    model = make(slot_dropout=0.5, alpha=0.0)
    batch = toy_batch(model, training=False)
    model.train()
    model.backbone.eval()
    first, second = (model.loss_terms(batch)["label"] for _ in range(2))
    assert not torch.equal(first, second)
    model.eval()
    assert torch.equal(model(batch), model(batch))


@pytest.mark.parametrize("settings", FORMS)
def test_a_saved_model_predicts_the_same_and_can_be_gone_on_from(
    settings: dict[str, Any], tmp_path: Path, toy_taxonomy: Taxonomy
) -> None:
    model = saved_ptmt(tmp_path, toy_taxonomy, **settings)
    classifier = Classifier.from_pretrained(tmp_path / "model")
    batch = model.collator(training=False)(toy_examples(model.tokenizer, toy_taxonomy))
    torch.testing.assert_close(classifier.probabilities(TEXTS), model.probabilities(model(batch)))
    again = warm(tmp_path / "model", toy_taxonomy, **settings)
    assert torch.equal(again.backbone.new_rows, model.backbone.new_rows)


def test_slots_are_kept_apart_from_labels_where_only_one_model_has_a_token_for_them(
    tmp_path: Path, toy_taxonomy: Taxonomy
) -> None:
    old = saved_ptmt(tmp_path, toy_taxonomy, slot_init="cls")
    new = warm(tmp_path / "model", toy_taxonomy)
    for name in toy_taxonomy.names:
        assert all(torch.equal(one, two) for one, two in zip(parts(new, name), parts(old, name), strict=True))
    assert len(new.backbone.new_rows) == len(old.backbone.new_rows) - 1


def test_slots_that_hold_another_token_are_refused(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    model = saved_ptmt(tmp_path, toy_taxonomy, slot_init="cls")
    drop_digest(tmp_path / "model")
    path = tmp_path / "model/ptmt.json"
    settings = json.loads(path.read_text())
    mask_id, slot_id, prompt_ids = model.template.mask_id, model.template.slot_id, model.template.prompt_ids
    for change, problem in [
        ({"slot_id": mask_id}, f"the slots hold token {mask_id}, not {slot_id}"),
        ({"slot_id": None, "prompt_ids": [slot_id, *prompt_ids]}, f"token {slot_id} is '[SLOT]', not '[P1]'"),
    ]:
        path.write_text(json.dumps(settings | {"template": settings["template"] | change}))
        with pytest.raises(ValueError, match=re.escape(problem)):
            Classifier.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize(("family", "form"), [("gpt2", "decoder"), ("t5", "encoder-decoder")])
@pytest.mark.parametrize(("key", "value", "usual"), [("slot_place", "before", "after"), ("slot_init", "cls", "mask")])
def test_slots_of_other_forms_stay_where_they_are(
    family: str, form: str, key: str, value: str, usual: str, tmp_path: Path, toy_taxonomy: Taxonomy
) -> None:
    message = f"model.{key}={value}: expected {usual} with a backbone that is a {form}; set that"
    with pytest.raises(ValueError, match=re.escape(message)):
        of_family(tmp_path, family, toy_taxonomy, **{key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slot_place": "middle"}, "model.slot_place='middle': expected 'after' or 'before'"),
        ({"slot_init": "sep"}, "model.slot_init='sep': expected 'mask' or 'cls'"),
        ({"bias_init": "zero"}, "model.bias_init='zero': expected 'level' or 'frequency'"),
        ({"slot_dropout": 1.0}, "model.slot_dropout=1.0: expected a number in [0, 1)"),
    ],
)
def test_bad_starts_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slots_first": 1}, "template.slots_first: expected true or false, got int"),
        ({"slot_id": -1}, "template.slot_id=-1: expected an integer in [0, 16777216]"),
        ({"form": "decoder", "slots_first": True}, "template.form='decoder': expected no slots_first and no slot_id"),
    ],
)
def test_a_broken_template_is_refused(change: dict[str, Any], message: str) -> None:
    settings = make().settings()["template"]
    with pytest.raises(ValueError, match=re.escape(message)):
        Template.from_json(settings | change)


# ---- labels ----


def test_random_rows_are_not_the_names() -> None:
    named, unnamed = make(label_init="label_name"), make(label_init="random")
    assert not (label_rows(named) == label_rows(unnamed)).all(dim=1).any()
    assert label_rows(unnamed).std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "electra", "modernbert"])
def test_label_states_are_those_of_the_names_as_texts(family: str, tmp_path: Path) -> None:
    taxonomy = Taxonomy([("ROOT", "m n"), ("ROOT", "n o"), ("ROOT", "o"), ("m n", "x y z")])
    model = of_family(tmp_path, family, taxonomy, label_init="label_state")
    reference = Pretrained(str(tmp_path)).load([])[0].model.eval()
    states = []
    for name in taxonomy.names:
        inputs = model.tokenizer(name, return_tensors="pt")
        ids = inputs["input_ids"]
        if family == "t5":
            start = model.tokenizer.pad_token_id
            hidden = reference(
                **inputs, decoder_input_ids=F.pad(ids[:, :-1], (1, 0), value=start), output_hidden_states=True
            ).decoder_hidden_states[-1]
        else:
            hidden = reference(**inputs, output_hidden_states=True).hidden_states[-1]
        states.append(model.backbone.family.transform(reference, hidden)[0].mean(dim=0))
    top = torch.stack(states[:3]) - torch.stack(states[:3]).mean(dim=0)
    expected = F.normalize(torch.cat([top, torch.stack(states[3:])]), dim=-1)
    torch.testing.assert_close(label_rows(model), expected, rtol=1e-4, atol=1e-5)


def test_names_that_a_tokenizer_reads_alike_do_not_start_alike() -> None:
    model = make([("ROOT", "m"), ("ROOT", "m!"), ("ROOT", "n"), ("m", "é"), ("m", "e")], label_init="label_state")
    rows = label_rows(model)
    assert len({tuple(row) for row in rows.tolist()}) == len(rows)
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(len(rows)))


def test_biases_start_at_the_frequencies() -> None:
    counts = [10, 5, 1, 4, 3, 3, 2, 0, 1, 1, 2]
    model = make(bias_init="frequency")
    model.start_from(counts, 19)
    nothing = torch.zeros(1, 3, 32)
    shares = (torch.tensor(counts) + 0.5) / 20
    torch.testing.assert_close(model.probabilities(model.label_logits(nothing))[0], shares)
    single = make(bias_init="frequency", label_loss=CrossEntropy())
    single.start_from(counts, 19)
    torch.testing.assert_close(single.probabilities(single.label_logits(nothing))[0], shares)


def test_frequencies_of_levels_without_an_end_stay_finite() -> None:
    model = make(bias_init="frequency", label_loss=CrossEntropy())
    model.start_from([7, 7, 6, *[0] * 8], 20)
    assert model.backbone.new_bias.isfinite().all()
    assert model.probabilities(model.label_logits(torch.zeros(1, 3, 32)))[0, :3].sum() > 0.95


def test_a_loss_with_a_prior_of_its_own_takes_no_second_one() -> None:
    model = make(bias_init="frequency", label_loss=ConditionalCrossEntropy())
    with pytest.raises(ValueError, match=r"model\.bias_init=frequency: loss=conditional_softmax adjusts scores"):
        model.start_from([1] * 11, 4)


def test_learnt_biases_are_kept(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    old = saved_ptmt(tmp_path, toy_taxonomy)
    new = warm(tmp_path / "model", toy_taxonomy, bias_init="frequency")
    new.start_from([3] * 11, 30)
    assert torch.equal(new.backbone.new_bias, old.backbone.new_bias)
    anew = warm(tmp_path / "model", toy_taxonomy, bias_init="frequency", label_init="random")
    anew.start_from([3] * 11, 30)
    torch.testing.assert_close(anew.backbone.new_bias[-11:].sigmoid(), torch.full((11,), 3.5 / 31))


# ---- the head ----


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_a_new_head_passes_states_on(family: str, tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    folder = save_family(tmp_path, family, TEXTS)
    backbone, tokenizer, max_length = Pretrained(str(folder)).load([])
    backbone.trained_head = False
    PTMT(
        taxonomy=toy_taxonomy, backbone=backbone, tokenizer=tokenizer, max_length=max_length,
        **ptmt_settings(identity_head=True, alpha=0.0),
    )  # fmt: skip
    states = torch.randn(4, backbone.hidden_size) / 2
    passed = backbone.transform(states)
    torch.testing.assert_close(passed, F.layer_norm(states, states.shape[-1:]), rtol=0.02, atol=0.02)


def test_a_trained_head_is_left_alone(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    message = r"model\.identity_head=true: expected a backbone whose masked-LM head is new, .*; set model"
    with pytest.raises(ValueError, match=message):
        of_family(tmp_path, "bert", toy_taxonomy, identity_head=True)
    with pytest.raises(ValueError, match=message):
        of_family(tmp_path, "gpt2", toy_taxonomy, identity_head=True)
