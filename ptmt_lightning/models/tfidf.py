"""Logistic regression on TF-IDF of words and pairs of words: the baseline without a language model.

Shape legend: ``N`` documents, ``V`` nodes, ``F`` features.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save_file
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor

import ptmt_lightning
from ptmt_lightning.calibration import Method, check_calibrate
from ptmt_lightning.decisions import (
    DECISIONS,
    DEFAULT_THRESHOLD,
    DecisionRule,
    Decoding,
    check_decoding,
    per_level,
)
from ptmt_lightning.metrics import Classes, HierarchicalMetrics
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.thresholds import Tuning, check_tuning
from ptmt_lightning.utils.checks import check_range
from ptmt_lightning.utils.digests import model_digests

_WORD = r"(?u)\b\w+\b"  # scikit-learn's own pattern leaves out words of one letter


class Weights(NamedTuple):
    """The logistic regressions of all nodes."""

    weight: npt.NDArray[np.float32]  # [V, F]
    bias: npt.NDArray[np.float32]  # [V]


class TfidfClassifier:
    """One logistic regression a node, on TF-IDF of n-grams of words, with logarithmic counts.

    Args:
        taxonomy: hierarchy of the labels.
        C: inverse strength of the regularisation; of several, the best on validation is taken.
        max_ngram: longest sequence of words that is a feature.
        min_df: number of training documents that an n-gram must occur in to be a feature.
        max_features: highest number of features, the most frequent n-grams.
        decoding: see :class:`~ptmt_lightning.models.base.HTCModel`, as all that follows.
        threshold: a node is predicted above this probability; a number, or a list with one a level.
        top_k: with ``decoding="top_k"``, the number of labels of each level.
        tune_threshold: choose thresholds on validation instead, ``global`` or by ``level``; None to keep ``threshold``.
            It has no effect with another decoding.
        calibrate: see :class:`~ptmt_lightning.models.base.HTCModel`.
        prune: drop predicted nodes below level 1 without a predicted parent.
        coherent: score a node no higher than its highest-scored parent.
        metric_classes: the classes that macro averages run over: ``present`` ones or ``all``.

    Attributes:
        rule: turns scores into labels.
        chooses_decoding: whether the training documents decide the decoding.
        weights: set by the run that fits the model.

    Raises:
        ValueError: a setting is not valid.
    """

    system: ClassVar[str] = "tfidf"
    weights: Weights

    def __init__(
        self,
        *,
        taxonomy: Taxonomy,
        C: float | Sequence[float] = (1, 10, 100, 1000),
        max_ngram: int = 2,
        min_df: int = 2,
        max_features: int = 100_000,
        decoding: Decoding | None = None,
        threshold: float | Sequence[float] = DEFAULT_THRESHOLD,
        top_k: int | None = None,
        tune_threshold: Tuning | None = "global",
        calibrate: Method | None = None,
        prune: bool = True,
        coherent: bool = False,
        metric_classes: Classes = "present",
    ) -> None:
        self.C = tuple(C) if isinstance(C, Sequence) else (C,)
        if not self.C:
            raise ValueError("model.C=[]: expected a number, or a list of numbers to choose from")
        for value in self.C:
            check_range("model.C", value, 0, low_open=True)
        check_range("model.max_ngram", max_ngram, 1, integer=True)
        check_range("model.min_df", min_df, 1, integer=True)
        check_range("model.max_features", max_features, 1, integer=True)
        self.chooses_decoding = decoding is None and top_k is None and threshold == DEFAULT_THRESHOLD
        decoding = decoding or "threshold"
        check_decoding(decoding, top_k)
        check_tuning(tune_threshold)
        check_calibrate(calibrate)
        HierarchicalMetrics(taxonomy, classes=metric_classes)  # refuses unknown ones
        self.taxonomy, self.metric_classes, self.tune_threshold = taxonomy, metric_classes, tune_threshold
        self.calibrate = calibrate
        self.rule = DecisionRule(
            taxonomy=taxonomy, decision=DECISIONS["sigmoid"], decoding=decoding, top_k=top_k, prune=prune,
            coherent=coherent, thresholds=per_level("model.threshold", threshold, taxonomy.num_levels),
        )  # fmt: skip
        self.vectorizer = TfidfVectorizer(
            ngram_range=(1, max_ngram), min_df=min_df, max_features=max_features, sublinear_tf=True, token_pattern=_WORD
        )

    def learn_features(self, texts: Iterable[str]) -> csr_matrix:
        """Choose the features by the training texts, and return these as vectors ``[N, F]``.

        Raises:
            ValueError: no n-gram occurs in ``min_df`` of the texts.
        """
        texts = list(texts)
        min_df = self.vectorizer.min_df
        try:
            return self.vectorizer.fit_transform(texts)
        except ValueError as error:
            remedy = "set model.min_df=1" if min_df > 1 else "model=tfidf needs texts with words"
            raise ValueError(
                f"model.min_df={min_df}: no word occurs in so many of the {len(texts)} training documents; {remedy}"
            ) from error

    def vectors(self, texts: Iterable[str]) -> csr_matrix:
        """Return texts as vectors ``[N, F]``."""
        return self.vectorizer.transform(texts)

    def fitted(self, vectors: csr_matrix, targets: npt.NDArray[np.bool_], C: float) -> Weights:
        """Return logistic regressions of training documents.

        A node that none or all of the documents have gets no weights, and the log-odds of its frequency as bias.

        Args:
            vectors: ``[N, F]``.
            targets: true nodes, bool ``[N, V]``.
            C: inverse strength of the regularisation.
        """
        (num_documents, num_nodes), num_features = targets.shape, vectors.shape[1]
        weight = np.zeros((num_nodes, num_features), dtype=np.float32)
        bias = np.zeros(num_nodes, dtype=np.float32)
        for node, count in enumerate(targets.sum(axis=0).tolist()):
            if count in (0, num_documents):
                bias[node] = math.log((count + 0.5) / (num_documents - count + 0.5))
                continue
            # lbfgs, the default solver, stops too early on rare labels (experiments/baselines).
            regression = LogisticRegression(C=C, solver="liblinear", max_iter=1000)
            regression.fit(vectors, targets[:, node])
            weight[node], bias[node] = regression.coef_[0], regression.intercept_[0]
        return Weights(weight, bias)

    def logits(self, vectors: csr_matrix, weights: Weights) -> Tensor:
        """Return the scores (logits) of all nodes, float32 ``[N, V]``, for vectors ``[N, F]``."""
        return torch.from_numpy((vectors @ weights.weight.T + weights.bias).astype(np.float32))

    @property
    def num_parameters(self) -> int:
        """Number of weights and biases."""
        return self.weights.weight.size + self.weights.bias.size

    def label_embeddings(self) -> None:
        """Return None: labels have no embeddings."""

    def save_pretrained(self, folder: Path) -> None:
        """Write the model to a new folder, as plain data: opening it runs no code.

        ``vocab.json`` lists the n-grams, ``head.safetensors`` has ``weight`` ``[V, F]``, ``bias`` ``[V]`` and ``idf``
        ``[F]`` in their order, ``tfidf.json`` the settings, and ``taxonomy.json`` the labels.
        """
        folder.mkdir()
        self.taxonomy.to_json(folder / "taxonomy.json")
        vocabulary = self.vectorizer.get_feature_names_out().tolist()
        (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
        tensors = {**self.weights._asdict(), "idf": self.vectorizer.idf_.astype(np.float32)}
        save_file(tensors, folder / "head.safetensors")
        settings = {
            "max_ngram": self.vectorizer.ngram_range[1], "token_pattern": _WORD, **self.rule.to_json(),
            "taxonomy_fingerprint": self.taxonomy.fingerprint, "metric_classes": self.metric_classes,
            "version": ptmt_lightning.__version__,
        }  # fmt: skip
        settings["digest"] = model_digests(folder, settings, f"{self.system}.json")
        (folder / f"{self.system}.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
        # safetensors writes private files, while the others are as the umask says.
        (folder / "head.safetensors").chmod((folder / "taxonomy.json").stat().st_mode)
