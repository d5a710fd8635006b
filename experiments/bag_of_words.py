"""A bag-of-words baseline: a linear SVM for each label on TF-IDF, scored with the same metrics as the models.

    python experiments/bag_of_words.py FOLDER

Words alone or with pairs of adjacent words, C, and a threshold for each level are chosen on the validation split;
predictions are pruned as the model's are.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import LinearSVC
from torch import Tensor

from ptmt_lightning.data.document import Document, read_documents, split_file
from ptmt_lightning.data.hierarchy import read_taxonomy
from ptmt_lightning.decisions import DECISIONS, DecisionRule
from ptmt_lightning.metrics import HierarchicalMetrics
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.thresholds import tune_thresholds

LONGEST = (1, 2)  # words of the longest n-grams
STRENGTHS = (0.3, 1.0, 3.0)  # values of C


@dataclass(frozen=True)
class Baseline:
    """The baseline with the settings that are best on the validation split.

    Attributes:
        settings: what was chosen, in words.
        scores: metrics of the splits ``val`` and ``test``.
        predicted: nodes predicted for the test documents, bool ``[N, V]``.
    """

    settings: str
    scores: dict[str, dict[str, float]]
    predicted: Tensor


def bag_of_words(folder: Path) -> Baseline:
    """Train with all settings, and return the one with the highest macro hF1 on the validation split.

    Args:
        folder: a data folder with ``{train,val,test}.jsonl`` and, if there is one, ``taxonomy.tsv``.

    Raises:
        ValueError: the folder lacks a split.
    """
    taxonomy = read_taxonomy(folder)
    documents = {split: _read(folder, split, taxonomy) for split in ("train", "val", "test")}
    targets = {split: _indicators(found, taxonomy) for split, found in documents.items()}
    best = None
    for longest in LONGEST:
        vectorizer = TfidfVectorizer(ngram_range=(1, longest), token_pattern=r"\w+", min_df=2, sublinear_tf=True)
        vectorizer.fit(document.text for document in documents["train"])
        texts = {split: vectorizer.transform(d.text for d in found) for split, found in documents.items()}
        for strength in STRENGTHS:
            classifier = OneVsRestClassifier(LinearSVC(C=strength, random_state=0))
            classifier.fit(texts["train"], targets["train"])
            # Not probabilities, but as good to put thresholds on.
            scores = {s: torch.tensor(classifier.decision_function(texts[s])).sigmoid() for s in ("val", "test")}
            settings = f"n-grams of up to {longest} words, C={strength:g}"
            found = _decided(settings, scores, targets, taxonomy)
            if best is None or found.scores["val"]["h_f1_macro"] > best.scores["val"]["h_f1_macro"]:
                best = found
    assert best is not None
    return best


def _decided(settings: str, scores: dict[str, Tensor], targets: dict[str, np.ndarray], taxonomy: Taxonomy) -> Baseline:
    """Tune a threshold for each level on the validation split, and predict and score both splits with them."""
    tuned = tune_thresholds(scores["val"], torch.tensor(targets["val"]), taxonomy, tuning="level", prune=True)
    rule = DecisionRule(taxonomy=taxonomy, decision=DECISIONS["sigmoid"], thresholds=tuple(tuned))
    predicted = {split: rule.predict(found) for split, found in scores.items()}
    metrics = {}
    for split, found in scores.items():
        counted = HierarchicalMetrics(taxonomy)
        counted.update(predicted[split], torch.tensor(targets[split]), found)
        metrics[split] = counted.compute().values
    return Baseline(f"{settings}, thresholds {tuned}", metrics, predicted["test"])


def _read(folder: Path, split: str, taxonomy: Taxonomy) -> list[Document]:
    path = split_file(folder, split)
    if path is None:
        raise ValueError(f"{folder}: no {split}.jsonl (or .gz) there")
    return list(read_documents(path, split, taxonomy))


def _indicators(documents: list[Document], taxonomy: Taxonomy) -> np.ndarray:
    indicators = np.zeros((len(documents), len(taxonomy)), dtype=bool)
    for row, document in enumerate(documents):
        indicators[row, list(document.nodes)] = True
    return indicators


if __name__ == "__main__":
    started = time.perf_counter()
    found = bag_of_words(Path(sys.argv[1]))
    print(found.settings)
    for split, values in found.scores.items():
        print(split, {name: round(value, 4) for name, value in values.items()})
    print(f"{time.perf_counter() - started:.0f} s")
