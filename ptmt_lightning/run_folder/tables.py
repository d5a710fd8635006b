"""The tables that a test leaves: scores of each label, and reliability."""

from __future__ import annotations

import numpy as np
import pandas as pd
from torch import Tensor

from ptmt_lightning.metrics import MetricValues, per_label, reliability
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils.files import write_text
from ptmt_lightning.utils.tables import csv_text

_BEST_AND_WORST = 500  # labels of each kind in a table that is not to grow with the taxonomy


def write_tables(
    folder: RunFolder, taxonomy: Taxonomy, metrics: MetricValues, uncalibrated: Tensor | None = None
) -> pd.DataFrame:
    """Write ``per_label.csv`` and ``reliability.csv``; return the table of labels.

    The labels with the most mistakes (predicted but wrong, or missed) come first.

    Args:
        folder: where the files are written.
        taxonomy: the taxonomy of the predicted nodes.
        metrics: the scores of the test.
        uncalibrated: counts of scores as they would be without calibration, for a line of their own in
            ``reliability.csv``.
    """
    _, wrong, missed = metrics.flat_counts.cpu()
    labels = pd.DataFrame(per_label(taxonomy, metrics.flat_counts)).round(4)
    labels = labels.iloc[np.argsort(-(wrong + missed).numpy(), kind="stable")]
    write_text(folder.per_label, csv_text(labels))
    scored = {"none": metrics.scored} if uncalibrated is None else {"before": uncalibrated, "after": metrics.scored}
    rows = [{"calibration": name, **row} for name, counts in scored.items() for row in reliability(counts)]
    write_text(folder.reliability, csv_text(pd.DataFrame(rows)))
    return labels


def best_and_worst(labels: pd.DataFrame) -> pd.DataFrame:
    """Return the table of labels, of a large taxonomy the 500 labels with the most mistakes and 500 with the fewest.

    Args:
        labels: as of :func:`write_tables`; of a large taxonomy those that neither occur nor are predicted are left out.
    """
    if len(labels) <= 2 * _BEST_AND_WORST:
        return labels
    seen = labels[labels["support"] + labels["predicted"] > 0]
    return (
        seen
        if len(seen) <= 2 * _BEST_AND_WORST
        else pd.concat([seen.head(_BEST_AND_WORST), seen.tail(_BEST_AND_WORST)])
    )
