"""A training that starts from a trained model keeps what that one has learnt of the labels that both know."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TOY_DOCUMENTS, TOY_EDGES, ptmt_settings, saved_ptmt, tiny_source, toy_examples
from hypothesis import given
from random_taxonomies import Edges, quick, trees_or_dags
from small_ptmt import TEXTS, toy_batch
from transformers import AutoTokenizer

from ptmt_lightning.backbones import Pretrained
from ptmt_lightning.inference import Classifier
from ptmt_lightning.losses import CrossEntropy
from ptmt_lightning.models.bert import BERTClassifier
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.taxonomy import Taxonomy

# BC is gone, CB is new, and A is called Z, so that all below it have another path.
GROWN_EDGES = [("Z" if p == "A" else p, "Z" if c == "A" else c) for p, c in TOY_EDGES if c != "BC"] + [("C", "CB")]
KNOWN = ["B", "C", "BA", "BB", "CA"]
NEW = ["Z", "AA", "AB", "AC", "AAA", "CB"]


def warm(folder: Path, taxonomy: Taxonomy, **changes: Any) -> PTMT:
    """A PTMT whose backbone is the trained model in a folder."""
    backbone, tokenizer, max_length = Pretrained(str(folder)).load([])
    torch.manual_seed(1)
    shared = {"taxonomy": taxonomy, "backbone": backbone, "tokenizer": tokenizer, "max_length": max_length}
    return PTMT(**shared | ptmt_settings(**changes)).eval()


def parts(model: PTMT, name: str) -> tuple[torch.Tensor, ...]:
    """Input and output embedding, and bias, of a label."""
    row = model.taxonomy.index[name] - len(model.taxonomy)
    backbone = model.backbone
    return backbone.new_rows[row], backbone.new_output_rows[row], backbone.new_bias[row]


@pytest.mark.parametrize("family", [None, "roberta", "gpt2", "t5", "bart", "llama", "deberta-v2"])
def test_known_labels_are_kept_new_ones_start_from_their_names(
    family: str | None, tmp_path: Path, toy_taxonomy: Taxonomy, caplog: pytest.LogCaptureFixture
) -> None:
    old = saved_ptmt(tmp_path, toy_taxonomy, family)
    with caplog.at_level(logging.INFO, logger="ptmt_lightning"):
        new = warm(tmp_path / "model", Taxonomy(GROWN_EDGES))
    assert (
        f"warm start from {tmp_path / 'model'}: 5 labels are known and keep what was learnt, 6 are new and start from "
        "their names, 6 are gone; prompts are kept"
    ) in caplog.text
    for name in KNOWN:
        for one, two in zip(parts(new, name), parts(old, name), strict=True):
            assert torch.equal(one, two), name
    initial_V = new.rule.decision.initial_logits(new.taxonomy.level_sizes)
    for name in NEW:
        if name in toy_taxonomy.index:
            assert not torch.equal(parts(new, name)[0], parts(old, name)[0])
        assert parts(new, name)[2] == initial_V[new.taxonomy.index[name]]
    prompts = slice(-len(new.taxonomy) - 3, -len(new.taxonomy))
    prompts_before = slice(-len(toy_taxonomy) - 3, -len(toy_taxonomy))
    assert torch.equal(new.backbone.new_rows[prompts], old.backbone.new_rows[prompts_before])
    weights = old.backbone.encoder.state_dict()
    for key, value in new.backbone.encoder.state_dict().items():
        rows = slice(old.template.num_text_tokens)
        assert torch.equal(value[rows] if value.ndim else value, weights[key][rows] if value.ndim else weights[key])

    new.save_pretrained(tmp_path / "new")
    tokens = AutoTokenizer.from_pretrained(tmp_path / "new").get_vocab()
    assert {token for token in tokens if token.startswith("[LABEL_")} == {f"[LABEL_{n}]" for n in KNOWN + NEW}
    assert len(tokens) == new.template.first_label_id + len(new.taxonomy)
    assert new.template.num_text_tokens == old.template.num_text_tokens
    classifier = Classifier.from_pretrained(tmp_path / "new")
    unlabelled = [example._replace(nodes=example.nodes[:0]) for example in toy_examples(old.tokenizer, toy_taxonomy)]
    batch = new.collator(training=False)(unlabelled)
    torch.testing.assert_close(classifier.score(batch), new(batch), rtol=1e-4, atol=1e-5)


def test_a_new_label_starts_as_the_mean_of_its_words_in_the_trained_model(
    tmp_path: Path, toy_taxonomy: Taxonomy
) -> None:
    old = saved_ptmt(tmp_path, toy_taxonomy)
    new = warm(tmp_path / "model", Taxonomy([*TOY_EDGES, ("ROOT", "m/n o")]))
    words = old.backbone.token_embeddings[old.tokenizer.convert_tokens_to_ids(["m", "n", "o"])]
    torch.testing.assert_close(parts(new, "m/n o")[0], words.mean(dim=0))


@pytest.mark.parametrize("family", [None, "gpt2", "t5"])
@pytest.mark.parametrize("prompts", ["shared", "per_document"])
def test_on_the_same_labels_it_predicts_as_the_old_model(
    family: str | None, prompts: str, tmp_path: Path, toy_taxonomy: Taxonomy
) -> None:
    """Before any training, to the last bit; and once more from what it saves."""
    old = saved_ptmt(tmp_path, toy_taxonomy, family, prompts=prompts)
    for source, target in (("model", "new"), ("new", "newer")):
        new = warm(tmp_path / source, toy_taxonomy, prompts=prompts)
        batch = toy_batch(old, training=False)
        assert torch.equal(new(batch), old(batch))
        new.save_pretrained(tmp_path / target)
    texts = "tokenizer.json"
    assert (tmp_path / "newer" / texts).read_text() == (tmp_path / "model" / texts).read_text()


def test_an_explicit_random_start_draws_all_labels(
    tmp_path: Path, toy_taxonomy: Taxonomy, caplog: pytest.LogCaptureFixture
) -> None:
    old = saved_ptmt(tmp_path, toy_taxonomy)
    with caplog.at_level(logging.INFO, logger="ptmt_lightning"):
        new = warm(tmp_path / "model", toy_taxonomy, label_init="random", num_prompt_tokens=2)
    assert "all 11 labels start at random (model.label_init=random); prompts start anew (2, not 3)" in caplog.text
    for name in toy_taxonomy.names:
        assert not torch.equal(parts(new, name)[0], parts(old, name)[0])
    assert torch.equal(new.backbone.new_bias[-11:], new.rule.decision.initial_logits(toy_taxonomy.level_sizes))


def test_biases_of_another_decision_start_anew(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    old = saved_ptmt(tmp_path, toy_taxonomy)
    new = warm(tmp_path / "model", toy_taxonomy, label_loss=CrossEntropy())
    assert new.backbone.new_bias.eq(0).all()
    assert torch.equal(parts(new, "CA")[0], parts(old, "CA")[0])


def test_the_masked_lm_loss_is_on_by_default_where_the_head_was_trained_with_it(
    tmp_path: Path, toy_taxonomy: Taxonomy
) -> None:
    for alpha, expected in ((0.3, 0.1), (None, 0.0)):  # the tiny backbone's head is new
        saved_ptmt(tmp_path / str(alpha), toy_taxonomy, alpha=alpha)
        assert warm(tmp_path / str(alpha) / "model", toy_taxonomy, alpha=None).alpha == expected


def test_of_another_system_the_encoder_is_taken(
    tmp_path: Path, toy_taxonomy: Taxonomy, caplog: pytest.LogCaptureFixture
) -> None:
    """In both directions, and back again."""
    saved_ptmt(tmp_path, toy_taxonomy)
    backbone, tokenizer, max_length = Pretrained(str(tmp_path / "model")).load([])
    shared: dict[str, Any] = {"taxonomy": toy_taxonomy, "tokenizer": tokenizer, "max_length": max_length}
    with caplog.at_level(logging.INFO, logger="ptmt_lightning"):
        peer = BERTClassifier(backbone=backbone, **shared)
        assert f"{tmp_path / 'model'} is a trained model: its encoder is taken, labels start anew" in caplog.text
        peer.save_pretrained(tmp_path / "peer")
        assert not any(token.startswith("[LABEL_") for token in tokenizer.get_vocab())
        caplog.clear()
        again = warm(tmp_path / "peer", toy_taxonomy)
    assert f"{tmp_path / 'peer'} is a trained model: its encoder is taken, labels start anew" in caplog.text
    first = next(iter(peer.backbone.encoder.encoder.parameters()))
    assert torch.equal(first, next(iter(again.backbone.encoder.encoder.parameters())))


def test_labels_of_a_renamed_node_are_known_by_their_paths(tmp_path: Path) -> None:
    """Whatever the nodes are called inside: names of trees by paths change when another path gets the same label."""
    before = Taxonomy.from_paths([["Phone", "Battery"], ["Camera", "Lens"]])
    after = Taxonomy.from_paths([["Laptop", "Battery"], ["Phone", "Battery"], ["Camera"]])
    assert after.names != after.labels
    found = {after.names[node]: place for node, place in enumerate(after.nodes_in(before))}
    known = {name: before.path_names(before.path_to(place)) for name, place in found.items() if place is not None}
    assert sorted(known.values()) == [["Camera"], ["Phone"], ["Phone", "Battery"]]


@quick
@given(trees_or_dags)
def test_all_labels_of_an_equal_taxonomy_are_known(edges: Edges) -> None:
    taxonomy = Taxonomy(edges)
    assert taxonomy.nodes_in(taxonomy) == list(range(len(taxonomy)))


def test_in_a_dag_any_parent_leads_to_a_known_label() -> None:
    before = Taxonomy([("ROOT", "A"), ("A", "X"), ("X", "Y")])
    after = Taxonomy([("ROOT", "B"), ("ROOT", "A"), ("B", "X"), ("A", "X"), ("X", "Y")])
    found = dict(zip(after.names, after.nodes_in(before), strict=True))
    assert found == {"B": None, "A": before.index["A"], "X": before.index["X"], "Y": before.index["Y"]}


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    saved_ptmt(tmp_path, toy_taxonomy)
    settings = json.loads((tmp_path / "model/ptmt.json").read_text())
    message = "ptmt.json, taxonomy.json and the tokenizer do not belong together; restore the folder, or remove"
    for changed in (
        {"template": 3},
        {"taxonomy_fingerprint": "x"},
        {"template": settings["template"] | {"prompt_ids": []}},
    ):
        (tmp_path / "model/ptmt.json").write_text(json.dumps(settings | changed))
        with pytest.raises(ValueError, match=message):
            Pretrained(str(tmp_path / "model")).load([])


def test_a_folder_for_the_backbone_from_scratch_is_refused(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    saved_ptmt(tmp_path, toy_taxonomy)
    with pytest.raises(
        ValueError, match=r"^backbone.name=.*: a model's folder, which backbone=tiny does not open; set"
    ):
        tiny_source(name=str(tmp_path / "model")).load(TEXTS)


def test_a_trained_model_of_a_hub_is_taken_by_its_revision(
    tmp_path: Path, toy_taxonomy: Taxonomy, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = saved_ptmt(tmp_path, toy_taxonomy)
    repository, commit = tmp_path / "hub/models--ann--trained", "a" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/v1").write_text(commit)
    shutil.copytree(tmp_path / "model", repository / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    backbone, tokenizer, max_length = Pretrained("ann/trained@v1").load([])
    shared: dict[str, Any] = {"taxonomy": toy_taxonomy, "tokenizer": tokenizer, "max_length": max_length}
    new = PTMT(backbone=backbone, **shared, **ptmt_settings()).eval()
    batch = old.collator(training=False)(toy_examples(old.tokenizer, toy_taxonomy))
    assert torch.equal(new(batch), old(batch))
    assert len(TOY_DOCUMENTS) == len(batch.rows)
