"""The TF-IDF baseline: its scores, its refusals, and its folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TOY_DOCUMENTS, TOY_EDGES
from safetensors.numpy import load_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from ptmt_lightning.models.tfidf import TfidfClassifier
from ptmt_lightning.taxonomy import Taxonomy

TEXTS = [document["text"] for document in TOY_DOCUMENTS] * 4


def toy_targets(taxonomy: Taxonomy) -> np.ndarray:
    targets = np.zeros((len(TEXTS), len(taxonomy)), dtype=bool)
    for row, document in enumerate(TOY_DOCUMENTS * 4):
        targets[row, taxonomy.encode(document["labels"])] = True  # type: ignore[arg-type]
    return targets


def fitted(taxonomy: Taxonomy, **settings: Any) -> TfidfClassifier:
    model = TfidfClassifier(taxonomy=taxonomy, **settings)
    model.weights = model.fitted(model.learn_features(TEXTS), toy_targets(taxonomy), 10)
    return model


def test_scores_are_scikit_learns_and_words_of_one_letter_count(toy_taxonomy: Taxonomy) -> None:
    model = fitted(toy_taxonomy)
    vectors = TfidfVectorizer(
        ngram_range=(1, 2), min_df=2, sublinear_tf=True, tokenizer=str.split, token_pattern=None
    ).fit_transform(TEXTS)
    targets = toy_targets(toy_taxonomy)
    probabilities = model.rule.probabilities(model.logits(model.vectors(TEXTS), model.weights)).numpy()
    for node in (node for node in range(len(toy_taxonomy)) if targets[:, node].any()):
        expected = LogisticRegression(C=10, solver="liblinear").fit(vectors, targets[:, node])
        np.testing.assert_allclose(probabilities[:, node], expected.predict_proba(vectors)[:, 1], atol=1e-4)


def test_labels_that_none_or_all_documents_have_get_their_frequency() -> None:
    taxonomy = Taxonomy([("ROOT", "all"), ("ROOT", "some"), ("ROOT", "none")])
    targets = np.array([[True, row % 2 == 0, False] for row in range(len(TEXTS))])
    model = TfidfClassifier(taxonomy=taxonomy)
    vectors = model.learn_features(TEXTS)
    probabilities = model.logits(vectors, model.fitted(vectors, targets, 10)).sigmoid()
    torch.testing.assert_close(probabilities[:, 0], torch.full((24,), 24.5 / 25))
    torch.testing.assert_close(probabilities[:, 2], torch.full((24,), 0.5 / 25))


def test_the_folder_has_all_that_scores_need_and_nothing_that_runs_code(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    model = fitted(toy_taxonomy, threshold=[0.5, 0.4, 0.3])
    model.save_pretrained(tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "head.safetensors", "taxonomy.json", "tfidf.json", "vocab.json",
    }  # fmt: skip
    settings = json.loads((tmp_path / "model/tfidf.json").read_text())
    assert settings["thresholds"] == [0.5, 0.4, 0.3]
    tensors = load_file(tmp_path / "model/head.safetensors")
    vectorizer = TfidfVectorizer(
        vocabulary=json.loads((tmp_path / "model/vocab.json").read_text()), sublinear_tf=True,
        ngram_range=(1, settings["max_ngram"]), token_pattern=settings["token_pattern"],
    )  # fmt: skip
    vectorizer.idf_ = tensors["idf"].astype(np.float64)
    logits = vectorizer.transform(["m n unknown", "x"]) @ tensors["weight"].T + tensors["bias"]
    expected = model.logits(model.vectors(["m n unknown", "x"]), model.weights)
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"C": 0}, "^model.C=0: expected a number > 0"),
        ({"C": []}, r"^model.C=\[\]: expected a number, or a list of numbers to choose from$"),
        ({"max_ngram": 0}, "^model.max_ngram=0: expected an integer >= 1"),
        ({"min_df": 1.5}, "^model.min_df=1.5: expected an integer >= 1"),
        ({"max_features": 0}, "^model.max_features=0: expected an integer >= 1"),
        ({"tune_threshold": "leaf"}, "^model.tune_threshold='leaf': expected null, 'global' or 'level'$"),
        ({"decoding": "top_k"}, "^model.decoding=top_k: expected model.top_k"),
        ({"metric_classes": "some"}, "^model.metric_classes='some': expected 'present' or 'all'$"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TfidfClassifier(taxonomy=Taxonomy(TOY_EDGES), **change)


@pytest.mark.parametrize(
    ("min_df", "texts", "remedy"),
    [(3, ["a b", "c"], "set model.min_df=1"), (2, ["a"], "set model.min_df=1"), (1, ["!", "?"], "model=tfidf needs")],
)
def test_texts_without_features_are_refused(min_df: int, texts: list[str], remedy: str) -> None:
    model = TfidfClassifier(taxonomy=Taxonomy(TOY_EDGES), min_df=min_df)
    expected = rf"^model.min_df={min_df}: no word occurs in so many of the {len(texts)} training documents; {remedy}"
    with pytest.raises(ValueError, match=expected):
        model.learn_features(texts)
