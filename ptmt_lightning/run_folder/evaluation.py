"""The folder that ``ptmt evaluate`` writes: tables and pictures as of a run's test, and ``evaluation.json``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ptmt_lightning
from ptmt_lightning.decisions import DecisionRule
from ptmt_lightning.metrics import MetricValues
from ptmt_lightning.run_folder import figures
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.run_folder.prediction import DocumentPrediction
from ptmt_lightning.run_folder.predictions import write_predictions
from ptmt_lightning.run_folder.tables import write_tables
from ptmt_lightning.utils.files import new_folder, write_json

_FILE = "evaluation.json"


def check_folder(path: Path, *, overwrite: bool) -> None:
    """Refuse a folder that exists, unless it holds an earlier evaluation that may be replaced.

    Raises:
        ValueError: the folder must not be written to; the message says what to give instead.
    """
    file = next((above for above in path.parents if above.exists() and not above.is_dir()), None)
    if file is not None:
        raise ValueError(f"-o {path}: {file} is a file; give a folder below folders")
    if not path.exists():
        return
    if not (path / _FILE).exists():
        raise ValueError(f"-o {path}: is there already, and holds no evaluation; give another folder")
    if not overwrite:
        raise ValueError(f"-o {path}: holds an evaluation already; give another folder, or --overwrite")


def write_evaluation(
    path: Path,
    description: Mapping[str, Any],
    rule: DecisionRule,
    metrics: MetricValues,
    predictions: Sequence[DocumentPrediction],
    document_ids: Sequence[str],
) -> None:
    """Write the folder of an evaluation, whole or not at all, in place of an earlier one.

    Args:
        path: the folder.
        description: entries of ``evaluation.json`` that say what was evaluated.
        rule: the decision rule that the predictions follow; it knows taxonomy and thresholds.
        metrics: the scores.
        predictions: one for each document.
        document_ids: the ids of the predictions' documents, in the same order.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(path) as temporary:
        folder = RunFolder(temporary)
        write_predictions(folder.predictions, predictions, document_ids, rule.taxonomy)
        write_tables(folder, rule.taxonomy, metrics)
        figures.draw(folder)
        result = {
            **description,
            "num_documents": len(document_ids),
            "metrics": metrics.values,
            "thresholds": list(rule.thresholds),
            "version": ptmt_lightning.__version__,
        }
        write_json(temporary / _FILE, result)
        if path.exists():  # an earlier evaluation, as check_folder has made sure
            shutil.rmtree(path)
