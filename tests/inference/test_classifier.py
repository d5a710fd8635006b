"""Predictions of a saved model equal those of the model that was trained."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TOY_DOCUMENTS, drop_digest, saved_ptmt, toy_examples

from ptmt_lightning.inference import Classifier, LabelPath
from ptmt_lightning.losses import CrossEntropy
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils.tokens import text_token_ids

TEXTS = [document["text"] for document in TOY_DOCUMENTS]


@pytest.fixture
def toy(tmp_path: Path, toy_taxonomy: Taxonomy) -> tuple[PTMT, Classifier]:
    model = saved_ptmt(tmp_path, toy_taxonomy)
    return model, Classifier.from_pretrained(tmp_path / "model")


def nodes_of(prediction: list[LabelPath], taxonomy: Taxonomy) -> set[int]:
    return {taxonomy.index[name] for path in prediction for name in path.labels}


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        (None, {}),
        (None, {"threshold": [0.3, 0.6, 0.5], "prune": False}),
        (None, {"coherent": True}),
        (None, {"decoding": "best_path"}),
        (None, {"decoding": "top_k", "top_k": 2}),
        (None, {"label_loss": CrossEntropy()}),
        (None, {"prompts": "per_document"}),
        ("roberta", {}),
        ("gpt2", {}),
        ("llama", {}),
        ("bart", {"prompts": "per_document"}),
        ("t5", {}),
    ],
)
def test_predictions_equal_the_trained_models(
    tmp_path: Path, toy_taxonomy: Taxonomy, model_type: str | None, changes: dict[str, Any]
) -> None:
    model = saved_ptmt(tmp_path, toy_taxonomy, model_type, **changes)
    classifier = Classifier.from_pretrained(tmp_path / "model", device="cpu")
    batch = model.collator(training=False)(toy_examples(model.tokenizer, toy_taxonomy))
    with torch.no_grad():
        probabilities = model.probabilities(model(batch))
    torch.testing.assert_close(classifier.probabilities(TEXTS), probabilities, rtol=1e-5, atol=1e-6)
    expected = [set(row.nonzero().flatten().tolist()) for row in model.predict_nodes(probabilities)]
    found = classifier.predict(TEXTS)
    assert [nodes_of(prediction, toy_taxonomy) for prediction in found] == expected
    for row, prediction in enumerate(found):
        for path in prediction:
            values = [probabilities[row, toy_taxonomy.index[name]].item() for name in path.labels]
            assert path.probabilities == pytest.approx(values, abs=2e-6)
        assert prediction == sorted(prediction, key=lambda path: -path.probabilities[-1])


def test_one_text_a_list_a_column_and_an_iterator(toy: tuple[PTMT, Classifier]) -> None:
    _, classifier = toy
    expected = classifier.predict(TEXTS)
    assert len(expected) == len(TEXTS)
    column = pd.Series(TEXTS, index=[f"row {i}" for i in range(len(TEXTS))])
    assert classifier.predict(column) == classifier.predict(tuple(TEXTS)) == expected
    stream = classifier.predict(iter(TEXTS))
    assert isinstance(stream, Iterator)
    assert list(stream) == expected
    assert classifier.predict([]) == []
    alone = [classifier.predict(text) for text in TEXTS]
    assert [[path.labels for path in prediction] for prediction in alone] == [
        [path.labels for path in prediction] for prediction in expected
    ]


def test_batch_size_and_order_change_nothing_but_the_last_digits(toy: tuple[PTMT, Classifier]) -> None:
    _, classifier = toy
    texts = [f"{text} {more}" for text in TEXTS for more in ("", "a", "m n o p", "b " * 20)]
    reference = classifier.predict(texts, batch_size=1)
    backwards = classifier.predict(texts[::-1], batch_size=5)[::-1]
    for one, other in zip(reference, backwards, strict=True):
        assert [path.labels for path in one] == [path.labels for path in other]
        for a, b in zip(one, other, strict=True):
            assert a.probabilities == pytest.approx(b.probabilities, abs=2e-6)


def test_an_iterator_is_read_as_predictions_are_taken(toy: tuple[PTMT, Classifier]) -> None:
    _, classifier = toy
    read = []

    def texts() -> Iterator[str]:
        for number in range(1000):
            read.append(number)
            yield TEXTS[number % len(TEXTS)]

    stream = classifier.predict(texts(), batch_size=2)
    assert read == []
    next(stream)
    assert 0 < len(read) <= 64


def test_thresholds_and_pruning_can_be_given(toy: tuple[PTMT, Classifier]) -> None:
    _, classifier = toy
    taxonomy = classifier.taxonomy
    probabilities = classifier.probabilities(TEXTS)
    low = classifier.predict(TEXTS, threshold=0.2, prune=False)
    assert [nodes_of(p, taxonomy) for p in low] == [
        set((row > 0.2).nonzero().flatten().tolist()) for row in probabilities
    ]
    pruned = classifier.predict(TEXTS, threshold=0.2)
    assert all(path.labels[0] in taxonomy.names[:3] for prediction in pruned for path in prediction)
    assert classifier.predict(TEXTS, threshold=1.0) == [[]] * len(TEXTS)
    by_level = classifier.predict(TEXTS, threshold=[0.2, 1.0, 1.0])
    assert {len(path.labels) for prediction in by_level for path in prediction} == {1}


def test_the_most_probable_nodes_of_each_level(toy: tuple[PTMT, Classifier]) -> None:
    _, classifier = toy
    taxonomy = classifier.taxonomy
    probabilities = classifier.probabilities(TEXTS)
    for prediction, row in zip(classifier.predict(TEXTS, top_k=2, prune=False), probabilities, strict=True):
        expected = {
            nodes.start + int(i) for nodes in taxonomy.level_slices for i in row[nodes].argsort(descending=True)[:2]
        }
        assert nodes_of(prediction, taxonomy) == expected
    both = classifier.predict(TEXTS, top_k=1, threshold=0.5, prune=False)
    for prediction, row in zip(both, probabilities, strict=True):
        assert all(row[node] > 0.5 for node in nodes_of(prediction, taxonomy))
        assert len(nodes_of(prediction, taxonomy)) <= taxonomy.num_levels


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, "threshold=1.5: expected a number in [0, 1]"),
        ({"threshold": [0.5, 0.5]}, "threshold=[0.5, 0.5]: expected a number, or 3 numbers, one a level"),
        ({"top_k": 0}, "top_k=0: expected an integer >= 1"),
        ({"batch_size": 0}, "batch_size=0: expected an integer >= 1"),
    ],
)
def test_bad_options_are_refused(toy: tuple[PTMT, Classifier], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        toy[1].predict(TEXTS, **options)


def test_what_is_no_text_is_refused_with_its_place(toy: tuple[PTMT, Classifier]) -> None:
    with pytest.raises(ValueError, match=r"^texts\[2\]: expected a string, got float nan"):
        toy[1].predict(["a", "b", float("nan")])


def test_long_and_empty_texts_are_predicted(toy: tuple[PTMT, Classifier]) -> None:
    assert len(toy[1].predict(["", "m " * 5000])) == 2


def test_reduced_precision(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    model = saved_ptmt(tmp_path, toy_taxonomy)
    classifier = Classifier.from_pretrained(tmp_path / "model", precision="bfloat16")
    full = Classifier.from_pretrained(tmp_path / "model").probabilities(TEXTS)
    reduced = classifier.probabilities(TEXTS)
    assert reduced.dtype == torch.float32
    assert model.backbone.new_rows.dtype == torch.float32
    torch.testing.assert_close(reduced, full, rtol=0, atol=0.02)
    assert not torch.equal(reduced, full)


def test_wrong_folders_are_refused(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    saved_ptmt(tmp_path, toy_taxonomy)
    with pytest.raises(ValueError, match=rf"^'{tmp_path}' has no ptmt.json, .*; did you mean {tmp_path}/model\?"):
        Classifier.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"^precision='int8': expected 'float32', 'bfloat16' or 'float16'"):
        Classifier.from_pretrained(tmp_path / "model", precision="int8")  # type: ignore[arg-type]
    (tmp_path / "model/ptmt.json").unlink()
    (tmp_path / "peer").mkdir()
    (tmp_path / "peer/mine.json").write_text('{"thresholds": [0.5], "version": "0.1.0"}')
    with pytest.raises(ValueError, match=r"hpt\.json: it is of model=mine, which this version of \S+ can't open"):
        Classifier.from_pretrained(tmp_path / "peer")
    with pytest.raises(ValueError, match=r"has no ptmt.json, bert.json, .*; expected the model/ folder of a run"):
        Classifier.from_pretrained(tmp_path / "model")


def test_settings_are_plain_json(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    model = saved_ptmt(tmp_path, toy_taxonomy)
    settings = json.loads((tmp_path / "model/ptmt.json").read_text())
    assert settings["thresholds"] == list(model.rule.thresholds or ())
    assert settings["decision"] == "sigmoid"


def test_no_training_code_is_imported(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    """Nor do the layers of Transformers' models come before a model is opened: they take as long as all the rest."""
    saved_ptmt(tmp_path, toy_taxonomy)
    code = (
        "import sys; from ptmt_lightning.inference import Classifier; "
        "found = lambda *names: [name for name in names if name in sys.modules]; "
        "print(found('transformers.modeling_utils', 'huggingface_hub', 'pandas', 'sklearn', 'pyarrow')); "
        f"Classifier.from_pretrained({str(tmp_path / 'model')!r}); "
        "print(found('lightning', 'hydra', 'torchmetrics', 'wandb', 'matplotlib', 'optuna', 'peft', 'pyarrow'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]


def test_a_text_that_spells_special_tokens_does_not_become_them(toy: tuple[PTMT, Classifier]) -> None:
    model, classifier = toy
    text = "m n [MASK] [LABEL_A] [P1] [SEP] o"
    [ids] = classifier.token_ids([text])
    assert ids == text_token_ids(model.tokenizer, [text], 100)[0][: model.template.text_budget]
    special = {model.template.mask_id, *range(model.template.num_text_tokens, len(classifier.tokenizer))}
    assert not special & set(ids)


@pytest.mark.parametrize("texts", [pd.DataFrame({"text": TEXTS}), {"a": "m"}])
def test_a_table_is_refused(toy: tuple[PTMT, Classifier], texts: Any) -> None:
    with pytest.raises(ValueError, match=r"^texts: expected a text, or .*, got (DataFrame|dict)"):
        toy[1].predict(texts)


def test_half_a_pair_is_refused_with_its_place(toy: tuple[PTMT, Classifier]) -> None:
    with pytest.raises(ValueError, match=r"^texts\[1\]: the text is not valid Unicode"):
        toy[1].predict(["m", "\ud800"])


def test_numbers_of_numpy_are_numbers(toy: tuple[PTMT, Classifier]) -> None:
    _, classifier = toy
    assert classifier.predict(TEXTS, threshold=np.array([0.3, 0.4, 0.5]), top_k=np.int64(2)) == classifier.predict(
        TEXTS, threshold=[0.3, 0.4, 0.5], top_k=2
    )


def test_a_model_without_thresholds_refuses_one(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    saved_ptmt(tmp_path, toy_taxonomy, label_loss=CrossEntropy())
    classifier = Classifier.from_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"^threshold=0.9: this model predicts the most probable label of each level"):
        classifier.predict("m", threshold=0.9)
    assert len(classifier.predict("m", top_k=2, prune=False)) >= 2


def test_scores_that_are_no_numbers_are_an_error(toy: tuple[PTMT, Classifier]) -> None:
    _, classifier = toy
    with torch.no_grad():
        classifier.score.backbone.new_bias[-1] = float("nan")  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="scores are not finite numbers; try precision='float32'"):
        classifier.predict("m n")


@pytest.mark.parametrize("texts", [None, 3, float("nan"), Path("a"), np.array("m n")], ids=repr)
def test_what_holds_no_texts_is_refused(toy: tuple[PTMT, Classifier], texts: Any) -> None:
    for use in (toy[1].predict, toy[1].probabilities):
        with pytest.raises(ValueError, match=r"^texts: expected a text, or texts one after the other, got \w+; "):
            use(texts)


def test_probabilities_of_one_text_and_of_an_iterator(toy: tuple[PTMT, Classifier]) -> None:
    expected = toy[1].probabilities(["m n", "o"])
    torch.testing.assert_close(toy[1].probabilities("m n"), expected[:1])
    torch.testing.assert_close(toy[1].probabilities(iter(["m n", "o"])), expected)
    assert toy[1].probabilities([]).shape == (0, expected.shape[1])


def test_too_little_memory_names_the_size_of_batches(toy: tuple[PTMT, Classifier]) -> None:
    def score(_: object) -> NoReturn:
        raise torch.OutOfMemoryError("1 GiB")

    full = Classifier(score, toy[1].folder, toy[1].tokenizer, "float32")
    for use in (full.predict, full.probabilities):
        with pytest.raises(ValueError, match=r"^batch_size=2: too little memory; lower it"):
            use(["m n", "o"], batch_size=2)


def test_devices_and_damaged_folders_are_named(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    saved_ptmt(tmp_path, toy_taxonomy)
    for device in ("nowhere", "cuda:99", "meta"):
        with pytest.raises(ValueError, match=rf"^device='{device}': not there"):
            Classifier.from_pretrained(tmp_path / "model", device=device)
    weights = tmp_path / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    drop_digest(tmp_path / "model")
    with pytest.raises(ValueError, match=r"^backbone\.name="):
        Classifier.from_pretrained(tmp_path / "model")
    settings = json.loads((tmp_path / "model/ptmt.json").read_text())
    del settings["decision"]
    (tmp_path / "model/ptmt.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"lacks what this one needs \(decision\); use that version"):
        Classifier.from_pretrained(tmp_path / "model")


def test_a_folders_own_code_is_not_run(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    saved_ptmt(tmp_path, toy_taxonomy)
    config = json.loads((tmp_path / "model/config.json").read_text())
    config |= {"model_type": "its_own", "auto_map": {"AutoConfig": "code.Config"}}
    (tmp_path / "model/config.json").write_text(json.dumps(config))
    drop_digest(tmp_path / "model")
    (tmp_path / "model/code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ValueError, match=r"^backbone\.name="):
        Classifier.from_pretrained(tmp_path / "model")
    assert not (tmp_path / "ran").exists()


def test_reduced_precision_leaves_angles_of_positions_whole(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    saved_ptmt(tmp_path, toy_taxonomy, "llama")
    classifier = Classifier.from_pretrained(tmp_path / "model", precision="bfloat16")
    angles = [b for name, b in classifier.score.named_buffers() if "inv_freq" in name]  # type: ignore[attr-defined]
    assert angles
    assert {buffer.dtype for buffer in angles} == {torch.float32}
    assert classifier.predict("m n", top_k=1)
