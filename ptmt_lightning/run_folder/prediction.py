"""The prediction for one document as a run keeps it: predicted and true nodes with their probabilities."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor


class DocumentPrediction(NamedTuple):
    """The predicted and the true nodes of one document."""

    row: int  # index in its split
    nodes: list[int]
    probabilities: list[float]  # of the predicted nodes
    true_nodes: list[int]
    true_probabilities: list[float]  # of the true nodes


def document_predictions(
    rows: Iterable[int], predicted: Tensor, probabilities: Tensor, targets: Tensor
) -> list[DocumentPrediction]:
    """Return the predictions of a batch, one for each document.

    Shape legend: ``B`` documents of the batch, ``V`` nodes.

    Args:
        rows: ``B`` rows, each that of a document within its split.
        predicted: bool ``[B, V]``, the predicted nodes.
        probabilities: ``[B, V]``.
        targets: bool ``[B, V]``, the true nodes.
    """
    predictions = []
    for row, kept, scores, true in zip(rows, predicted.cpu(), probabilities.cpu(), targets.cpu(), strict=True):
        nodes, true_nodes = kept.nonzero().squeeze(-1), true.nonzero().squeeze(-1)
        predictions.append(
            DocumentPrediction(
                row, nodes.tolist(), scores[nodes].tolist(), true_nodes.tolist(), scores[true_nodes].tolist()
            )
        )
    return predictions
