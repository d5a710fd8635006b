"""The tables that a test leaves: predictions, scores of each label, and reliability."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor

from ptmt_lightning.metrics import MetricValues, per_label, reliability
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.run_folder.prediction import DocumentPrediction
from ptmt_lightning.run_folder.predictions import write_predictions
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils.files import write_text
from ptmt_lightning.utils.tables import csv_text


def write_tables(
    folder: RunFolder,
    taxonomy: Taxonomy,
    metrics: MetricValues,
    predictions: Sequence[DocumentPrediction],
    document_ids: Sequence[str],
    uncalibrated: Tensor | None = None,
) -> pd.DataFrame:
    """Write ``predictions.jsonl``, ``per_label.csv`` and ``reliability.csv``; return the table of labels.

    The labels with the most mistakes (predicted but wrong, or missed) come first.

    Args:
        folder: where the files are written.
        taxonomy: the taxonomy of the predicted nodes.
        metrics: the scores of the test.
        predictions: one for each document.
        document_ids: the ids of the predictions' documents, in the same order.
        uncalibrated: counts of scores as they would be without calibration, for a line of their own in
            ``reliability.csv``.
    """
    write_predictions(folder.predictions, predictions, document_ids, taxonomy)
    _, wrong, missed = metrics.flat_counts.cpu()
    labels = pd.DataFrame(per_label(taxonomy, metrics.flat_counts)).round(4)
    labels = labels.iloc[np.argsort(-(wrong + missed).numpy(), kind="stable")]
    write_text(folder.per_label, csv_text(labels))
    scored = {"none": metrics.scored} if uncalibrated is None else {"before": uncalibrated, "after": metrics.scored}
    rows = [{"calibration": name, **row} for name, counts in scored.items() for row in reliability(counts)]
    write_text(folder.reliability, csv_text(pd.DataFrame(rows)))
    return labels
