"""Scores of a saved model on documents whose labels are known, without training."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from ptmt_lightning.data.document import SPLITS, Document, read_documents, split_file
from ptmt_lightning.inference.classifier import Classifier
from ptmt_lightning.metrics import HierarchicalMetrics, MetricValues
from ptmt_lightning.run_folder.prediction import DocumentPrediction, document_predictions
from ptmt_lightning.taxonomy import Taxonomy

_CHUNK = 1024  # documents that are sorted by length together


class Evaluation(NamedTuple):
    """How a model did on documents."""

    metrics: MetricValues
    predictions: list[DocumentPrediction]  # in the order of the documents
    document_ids: list[str]


def documents_of(data: Path, split: str, taxonomy: Taxonomy) -> Iterable[Document]:
    """Return the documents of a split of a data folder, or of a file, with the nodes of a model's taxonomy.

    Args:
        data: a folder with ``{train,val,test}.jsonl`` (plain or ``.gz``), or one such file.
        split: of a folder.
        taxonomy: of the model. Where the folder has a ``taxonomy.tsv``, it must be the same.

    Raises:
        ValueError: no such folder, file or split, or another taxonomy.
    """
    if data.is_file():
        return read_documents(data, data.name.split(".")[0], taxonomy)
    if not data.is_dir():
        raise ValueError(f"{data}: no such folder or file; expected data in the project's form")
    path = split_file(data, split)
    if path is None:
        found = [name for name in SPLITS if split_file(data, name)]
        raise ValueError(
            f"{data}: no {split}.jsonl (or .gz) there; set --split to one of: {', '.join(found) or 'none'}"
        )
    if (data / "taxonomy.tsv").exists():
        _check_taxonomy(data / "taxonomy.tsv", taxonomy)
    return read_documents(path, split, taxonomy)


def _check_taxonomy(path: Path, taxonomy: Taxonomy) -> None:
    theirs = set(Taxonomy.from_tsv(path).edges)
    for edges, problem in ((theirs - set(taxonomy.edges), "the model lacks"), (set(taxonomy.edges) - theirs, "lacks")):
        if edges:
            parent, child = min(edges)
            raise ValueError(
                f"{path}: {problem} the edge {parent!r} -> {child!r} (and {len(edges) - 1} more); expected the "
                "taxonomy that the model was trained with; use its data, or give the file of one split alone"
            )


def evaluate(classifier: Classifier, documents: Iterable[Document], *, batch_size: int = 32) -> Evaluation:
    """Predict documents as :meth:`~ptmt_lightning.inference.Classifier.predict` does, and count what is right.

    Args:
        documents: with the nodes of the classifier's taxonomy.
        batch_size: documents at a time.
    """
    metrics = HierarchicalMetrics(classifier.taxonomy)
    predictions: list[DocumentPrediction] = []
    ids: list[str] = []
    iterator = iter(documents)
    with tqdm(unit=" documents", disable=None) as bar:
        while chunk := list(itertools.islice(iterator, _CHUNK)):
            probabilities = classifier.probabilities([document.text for document in chunk], batch_size=batch_size)
            targets = torch.zeros(len(chunk), len(classifier.taxonomy), dtype=torch.bool)
            for row, document in enumerate(chunk):
                targets[row, list(document.nodes)] = True
            predicted = classifier.rule.predict(probabilities)
            metrics.update(predicted, targets, probabilities)
            rows = range(len(ids), len(ids) + len(chunk))
            predictions += document_predictions(rows, predicted, probabilities, targets)
            ids += [document.id for document in chunk]
            bar.update(len(chunk))
    return Evaluation(metrics.compute(), predictions, ids)
