"""Evaluation of a saved model on documents whose labels are known."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

import torch
from tqdm import tqdm

from ptmt_lightning.data.document import SPLITS, Document, read_documents, split_file
from ptmt_lightning.data.hierarchy import has_taxonomy
from ptmt_lightning.inference.classifier import Classifier
from ptmt_lightning.metrics import HierarchicalMetrics, MetricValues
from ptmt_lightning.run_folder.prediction import DocumentPrediction, document_predictions
from ptmt_lightning.taxonomy import Taxonomy

_CHUNK = 1024  # number of documents that are sorted by length together


class Evaluation(NamedTuple):
    """The scores of a model on documents, and its prediction for each of them."""

    metrics: MetricValues
    predictions: list[DocumentPrediction]  # in the order of the documents
    document_ids: list[str]


def labelled_file(data: Path, split: str) -> Path:
    """Return the file of labelled documents that is meant by a path.

    Args:
        data: a folder with ``{train,val,test}.jsonl`` (plain or ``.gz``), or one such file.
        split: name of the split; matters for a folder only.

    Raises:
        ValueError: the folder, file or split does not exist.
    """
    if data.is_file():
        return data
    if not data.is_dir():
        raise ValueError(f"{data}: no such folder or file; expected data in the project's form")
    path = split_file(data, split)
    if path is None:
        found = [name for name in SPLITS if split_file(data, name)]
        raise ValueError(
            f"{data}: no {split}.jsonl (or .gz) there; set --split to one of: {', '.join(found) or 'none'}"
        )
    return path


def documents_of(data: Path, split: str, taxonomy: Taxonomy) -> Iterable[Document]:
    """Return the labelled documents of a split of a data folder, or of a file, with the nodes of a model's taxonomy.

    Args:
        data: a folder with ``{train,val,test}.jsonl`` (plain or ``.gz``), or one such file.
        split: name of the split; matters for a folder only.
        taxonomy: taxonomy of the model. If the folder has a ``taxonomy.tsv``, it must have the same edges.

    Raises:
        ValueError: the folder, file or split does not exist, or the folder has another taxonomy.
    """
    path = labelled_file(data, split)
    if path != data and has_taxonomy(data):
        _check_taxonomy(data / "taxonomy.tsv", taxonomy)
    return read_documents(path, path.name.split(".")[0], taxonomy)


def _check_taxonomy(path: Path, taxonomy: Taxonomy) -> None:
    theirs, known = (_in_one_form(found) for found in (Taxonomy.from_tsv(path), taxonomy))
    for edges, problem in ((theirs - known, "the model lacks"), (known - theirs, "lacks")):
        if edges:
            parent, child = min(edges)
            raise ValueError(
                f"{path}: {problem} the edge {parent!r} -> {child!r} (and {len(edges) - 1} more); expected the "
                "taxonomy that the model was trained with; use its data, or give the file of one split alone"
            )


def _in_one_form(taxonomy: Taxonomy) -> set[tuple[str, str]]:
    """Return the edges with names in Unicode's form NFC, as documents' labels are compared."""
    return {(normalize("NFC", parent), normalize("NFC", child)) for parent, child in taxonomy.edges}


def evaluate(classifier: Classifier, documents: Iterable[Document], *, batch_size: int = 32) -> Evaluation:
    """Predict documents as :meth:`~ptmt_lightning.inference.Classifier.predict` does, and score the predictions.

    Args:
        classifier: the model to be evaluated.
        documents: the documents; their nodes are those of the classifier's taxonomy.
        batch_size: number of documents in a batch.
    """
    classes = classifier.folder.settings.get("metric_classes", "present")  # versions before 0.2 did not save it
    metrics = HierarchicalMetrics(classifier.taxonomy, classes=classes)
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
