"""The file ``predictions.jsonl``: the true and the predicted paths of each test document."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ptmt_lightning.run_folder.prediction import DocumentPrediction
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils.files import write_text


def write_predictions(
    path: Path, predictions: Iterable[DocumentPrediction], document_ids: Iterable[str], taxonomy: Taxonomy
) -> None:
    """Write ``predictions.jsonl``, one document on each line.

    A line is ``{"id", "labels": true paths, "predicted": [{"path", "probabilities"}, ...]}``. Where
    predictions are not pruned, a path may begin below the top: with the unique name of its first node.
    """
    lines = [
        json.dumps(_prediction_record(prediction, document_id, taxonomy), ensure_ascii=False) + "\n"
        for prediction, document_id in zip(predictions, document_ids, strict=True)
    ]
    write_text(path, "".join(lines))


def _prediction_record(prediction: DocumentPrediction, document_id: str, taxonomy: Taxonomy) -> dict[str, Any]:
    probability = dict(zip(prediction.nodes, prediction.probabilities, strict=True))
    return {
        "id": document_id,
        "labels": [taxonomy.path_names(path) for path in taxonomy.label_paths(prediction.true_nodes)],
        "predicted": [
            {"path": taxonomy.path_names(path), "probabilities": [round(probability[node], 4) for node in path]}
            for path in taxonomy.label_paths(prediction.nodes)
        ],
    }
