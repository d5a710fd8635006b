"""The test documents that were predicted wrongly, worst first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from ptmt_lightning.run_folder.prediction import DocumentPrediction
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.files import STEP

_CHARACTERS = 500  # the table shows so many of a text


def wrong_predictions(
    predictions: Iterable[DocumentPrediction],
    document_ids: Iterable[str],
    texts: Iterable[str],
    taxonomy: Taxonomy,
    *,
    limit: int = 1000,
) -> pd.DataFrame:
    """Return a table of wrongly predicted documents: ``id, text, true, true_probability, predicted, probability, f1``.

    The document whose labels have the lowest F1 comes first; among equals, the one with the most probable wrong label.
    A cell has one line for each path, with the probability of the path's last label.

    Args:
        predictions: all predictions of the test.
        document_ids: the ids of the predictions' documents, in the same order.
        texts: the texts of all documents of the split, by row.
        taxonomy: the taxonomy of the predicted nodes.
        limit: the largest number of rows.
    """
    wrong = [
        pair for pair in zip(predictions, document_ids, strict=True) if set(pair[0].nodes) != set(pair[0].true_nodes)
    ]
    worst = sorted(wrong, key=lambda pair: _by_mistake(pair[0]))[:limit]
    rows = {prediction.row for prediction, _ in worst}
    text_of = {row: text[:_CHARACTERS] for row, text in enumerate(texts) if row in rows}
    records = []
    for prediction, document_id in worst:
        true, true_probability = _cells(prediction.true_nodes, prediction.true_probabilities, taxonomy)
        predicted, probability = _cells(prediction.nodes, prediction.probabilities, taxonomy)
        f1 = _f1(prediction)
        records.append((document_id, text_of[prediction.row], true, true_probability, predicted, probability, f1))
    columns = ["id", "text", "true", "true_probability", "predicted", "probability", "f1"]
    return pd.DataFrame(records, columns=columns)


def _by_mistake(prediction: DocumentPrediction) -> tuple[float, float, int]:
    true = set(prediction.true_nodes)
    scored = zip(prediction.nodes, prediction.probabilities, strict=True)
    surest = max((probability for node, probability in scored if node not in true), default=0.0)
    return _f1(prediction), -surest, prediction.row


def _f1(prediction: DocumentPrediction) -> float:
    predicted, true = set(prediction.nodes), set(prediction.true_nodes)
    return 2 * len(predicted & true) / (len(predicted) + len(true))


def _cells(nodes: Sequence[int], probabilities: Sequence[float], taxonomy: Taxonomy) -> tuple[str, str]:
    probability = dict(zip(nodes, probabilities, strict=True))
    paths = taxonomy.label_paths(nodes)
    names = (STEP.join(taxonomy.path_names(path)) for path in paths)
    return "\n".join(names), "\n".join(f"{probability[path[-1]]:.4f}" for path in paths)
