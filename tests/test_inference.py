"""Predictions of a saved model equal those of the model that was trained."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import TOY_DOCUMENTS, saved_ptmt, toy_examples

from ptmt_lightning.inference import Classifier, LabelPath
from ptmt_lightning.losses import CrossEntropy
from ptmt_lightning.models.ptmt import PTMT
from ptmt_lightning.taxonomy import Taxonomy

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
    with pytest.raises(ValueError, match=rf"^'{tmp_path}' has no ptmt.json; did you mean {tmp_path}/model\?"):
        Classifier.from_pretrained(tmp_path)
    (tmp_path / "model/ptmt.json").unlink()
    with pytest.raises(ValueError, match=r"has no ptmt.json; expected the model/ folder of a PTMT run"):
        Classifier.from_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"^precision='int8': expected 'float32', 'bfloat16' or 'float16'"):
        Classifier.from_pretrained(tmp_path / "model", precision="int8")  # type: ignore[arg-type]


def test_settings_are_plain_json(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    model = saved_ptmt(tmp_path, toy_taxonomy)
    settings = json.loads((tmp_path / "model/ptmt.json").read_text())
    assert settings["thresholds"] == model.thresholds
    assert settings["single_label"] is False


def test_no_training_code_is_imported() -> None:
    code = (
        "import sys, ptmt_lightning.inference; heavy = ('lightning', 'hydra', 'datasets', 'torchmetrics', 'wandb', "
        "'pandas', 'matplotlib', 'sklearn', 'optuna', 'peft'); print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
