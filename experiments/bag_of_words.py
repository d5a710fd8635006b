"""A bag-of-words baseline: one-vs-rest logistic regression on TF-IDF, scored with the same metrics.

    python experiments/bag_of_words.py FOLDER

C is chosen on the validation split; predictions are pruned as the model's are.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from ptmt_lightning.data.document import Document, read_documents, split_file
from ptmt_lightning.data.hierarchy import read_taxonomy
from ptmt_lightning.metrics import HierarchicalMetrics
from ptmt_lightning.taxonomy import Taxonomy


def bag_of_words(folder: Path, strengths: tuple[float, ...] = (1, 10, 100)) -> dict[str, dict[str, float]]:
    """Train with several values of C, and return the metrics of the best: ``{"val": ..., "test": ...}``.

    Args:
        folder: a data folder with ``{train,val,test}.jsonl`` and, if there is one, ``taxonomy.tsv``.
        strengths: the values of C to try; the one with the highest macro hF1 on the validation split is the best.

    Raises:
        ValueError: the folder lacks a split.
    """
    taxonomy = read_taxonomy(folder)
    documents = {split: _read(folder, split, taxonomy) for split in ("train", "val", "test")}
    vectorizer = TfidfVectorizer(min_df=2, sublinear_tf=True)
    train = vectorizer.fit_transform(document.text for document in documents["train"])
    best: dict[str, dict[str, float]] = {}
    for strength in strengths:
        regression = OneVsRestClassifier(LogisticRegression(C=strength, max_iter=1000))
        regression.fit(train, _indicators(documents["train"], taxonomy))
        scores = {}
        for split in ("val", "test"):
            texts = vectorizer.transform(document.text for document in documents[split])
            metrics = HierarchicalMetrics(taxonomy)
            targets = torch.tensor(_indicators(documents[split], taxonomy))
            probabilities = torch.tensor(regression.predict_proba(texts))
            metrics.update(taxonomy.prune(probabilities > 0.5), targets, probabilities)
            scores[split] = metrics.compute().values
        if not best or scores["val"]["h_f1_macro"] > best["val"]["h_f1_macro"]:
            best = scores
    return best


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
    for split, values in bag_of_words(Path(sys.argv[1])).items():
        print(split, {name: round(value, 4) for name, value in values.items()})
    print(f"{time.perf_counter() - started:.0f} s")
