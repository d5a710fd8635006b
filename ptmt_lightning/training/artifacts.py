"""The outputs of a run: first what it is run for, its model, predictions and result; then what is told about them."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import pandas as pd
from torch import Tensor

from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.metrics import MetricValues
from ptmt_lightning.run_folder import figures, label_embeddings
from ptmt_lightning.run_folder.mistakes import wrong_predictions
from ptmt_lightning.run_folder.model_card import model_card
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.run_folder.prediction import DocumentPrediction
from ptmt_lightning.run_folder.predictions import write_predictions
from ptmt_lightning.run_folder.tables import best_and_worst, write_tables
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.training.loggers import RunWandbLogger
from ptmt_lightning.training.wandb_summary import records_of
from ptmt_lightning.utils.errors import one_line
from ptmt_lightning.utils.files import write_json, write_text
from ptmt_lightning.utils.tables import csv_text

log = logging.getLogger(__name__)

_WANDB_MISTAKES = 100  # documents in the table that W&B keeps

Made = TypeVar("Made")


class Tested(NamedTuple):
    """The outcome of a test."""

    metrics: MetricValues
    predictions: list[DocumentPrediction]  # by row
    seconds: float
    uncalibrated: Tensor | None = None  # counts of scores as they would be without calibration, if there is one

    @property
    def score_counts(self) -> tuple[Tensor | None, Tensor]:
        """The counts of scores before calibration, if there is one, and those of the metrics."""
        return self.uncalibrated, self.metrics.scored


class FinishedModel(Protocol):
    """What the outputs of a run ask of its model, be it a trained system or a baseline that is fitted."""

    @property
    def taxonomy(self) -> Taxonomy:
        """Hierarchy of the labels."""

    def label_embeddings(self) -> tuple[Tensor, Tensor] | None:
        """Return the embeddings of nodes before training and now, ``[V, H]`` each, or None without any."""

    def save_pretrained(self, folder: Path) -> None:
        """Write the model to a new folder."""


class FinishedRun(NamedTuple):
    """All that the outputs of a run are made from."""

    folder: RunFolder
    datamodule: HTCDataModule
    model: FinishedModel
    result: Mapping[str, Any]  # the content of result.json
    tested: Tested | None  # None without a test

    def test_ids(self) -> list[str]:
        """Return the ids of the test documents, in the order of the predictions."""
        assert self.tested is not None
        return self.datamodule.document_ids("test", [prediction.row for prediction in self.tested.predictions])


Tables = Mapping[str, pd.DataFrame]  # tables to log to W&B, by the name that they have there


def _test_tables(run: FinishedRun) -> Tables:
    if run.tested is None:
        return {}
    labels = write_tables(run.folder, run.model.taxonomy, run.tested.metrics, run.tested.uncalibrated)
    return {"test/per_label": best_and_worst(labels)}


def _mistakes(run: FinishedRun) -> Tables:
    if run.tested is None:
        return {}
    texts = run.datamodule.texts("test")
    table = wrong_predictions(run.tested.predictions, run.test_ids(), texts, run.model.taxonomy)
    write_text(run.folder.mistakes, csv_text(table))
    return {"test/wrong_predictions": table.head(_WANDB_MISTAKES)}


def _model_card(run: FinishedRun) -> Tables:
    write_text(run.folder.model / "README.md", model_card(run.result, run.model.taxonomy))
    return {}


def _label_embeddings(run: FinishedRun) -> Tables:
    embeddings = run.model.label_embeddings()
    if embeddings is None:
        return {}
    table = label_embeddings.table(*embeddings, run.model.taxonomy)
    write_text(run.folder.label_embeddings, csv_text(table))
    return {"label_embeddings": table}


# What a run leaves beside its model, predictions and result, by the name that a warning gives it, in this order;
# pictures follow. To add an output, add a function that writes it and returns the tables that W&B is to have.
OUTPUTS: dict[str, Callable[[FinishedRun], Tables]] = {
    "per_label.csv, reliability.csv": _test_tables,
    "mistakes.csv": _mistakes,
    "model/README.md": _model_card,
    "label_embeddings.csv": _label_embeddings,
}


def attempt(output: str, make: Callable[[], Made]) -> Made | None:
    """Return what a function returns; where it fails, warn that the output is missing and why, and return None.

    Args:
        output: name of the output in the warning.
        make: writes or computes it.
    """
    try:
        return make()
    except Exception as error:  # of any kind: no table or picture of a run is worth what the run has computed
        reason = one_line(error) or f"{type(error).__name__}: {error}"
        log.warning("%s is missing: %s", output, reason, exc_info="PTMT_DEBUG" in os.environ)
        return None


def write_model(folder: RunFolder, model: FinishedModel) -> None:
    """Write the folder of the trained model, whole or not at all, in place of an earlier one."""
    with tempfile.TemporaryDirectory(prefix=".model.", dir=folder.path) as temporary:
        made = Path(temporary) / "model"
        model.save_pretrained(made)
        shutil.rmtree(folder.model, ignore_errors=True)
        made.rename(folder.model)


def write_run(run: FinishedRun, wandb_logger: RunWandbLogger | None, *, draw: bool = True) -> None:
    """Write predictions and ``result.json``, with which a run is finished; then all else, of which nothing has to be.

    The model is there already, see :func:`write_model`.

    Args:
        run: the finished run.
        wandb_logger: its W&B logger; None without one.
        draw: whether to draw the pictures, which takes as long as a small training.
    """
    if run.tested is not None:
        write_predictions(run.folder.predictions, run.tested.predictions, run.test_ids(), run.model.taxonomy)
    write_json(run.folder.result, run.result)
    tables: dict[str, pd.DataFrame] = {}
    for name, output in OUTPUTS.items():
        tables.update(attempt(name, partial(output, run)) or {})
    for name in figures.PICTURES if draw else ():
        attempt(f"figures/{name}.png", partial(figures.draw_one, run.folder, name))
    if wandb_logger:
        records = records_of(wandb_logger, run.folder, run.result, tables, run.datamodule.split_ids)
        for name, record in records.items():
            attempt(f"W&B: {name}", record)
