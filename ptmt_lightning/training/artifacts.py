"""The outputs that are written when a run has ended."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pandas as pd
from torch import Tensor

from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.metrics import MetricValues
from ptmt_lightning.run_folder import figures, label_embeddings
from ptmt_lightning.run_folder.mistakes import wrong_predictions
from ptmt_lightning.run_folder.model_card import model_card
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.run_folder.prediction import DocumentPrediction
from ptmt_lightning.run_folder.tables import write_tables
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.training.loggers import RunWandbLogger
from ptmt_lightning.training.wandb_summary import log_finished
from ptmt_lightning.utils.files import write_json, write_text
from ptmt_lightning.utils.tables import csv_text

_WANDB_MISTAKES = 100  # documents in the table that W&B keeps


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
    tested = run.tested
    labels = write_tables(
        run.folder, run.model.taxonomy, tested.metrics, tested.predictions, run.test_ids(), tested.uncalibrated
    )
    return {"test/per_label": labels}


def _mistakes(run: FinishedRun) -> Tables:
    if run.tested is None:
        return {}
    texts = run.datamodule.texts("test")
    table = wrong_predictions(run.tested.predictions, run.test_ids(), texts, run.model.taxonomy)
    write_text(run.folder.mistakes, csv_text(table))
    return {"test/wrong_predictions": table.head(_WANDB_MISTAKES)}


def _label_embeddings(run: FinishedRun) -> Tables:
    embeddings = run.model.label_embeddings()
    if embeddings is None:
        return {}
    table = label_embeddings.table(*embeddings, run.model.taxonomy)
    write_text(run.folder.label_embeddings, csv_text(table))
    return {"label_embeddings": table}


def _figures(run: FinishedRun) -> Tables:
    figures.draw(run.folder)
    return {}


def _model(run: FinishedRun) -> Tables:
    with tempfile.TemporaryDirectory(prefix=".model.", dir=run.folder.path) as temporary:
        made = Path(temporary) / "model"
        run.model.save_pretrained(made)
        write_text(made / "README.md", model_card(run.result, run.model.taxonomy))
        shutil.rmtree(run.folder.model, ignore_errors=True)
        made.rename(run.folder.model)
    return {}


# What a run leaves, in this order; result.json comes last. To add an output, add a function that writes it.
OUTPUTS: tuple[Callable[[FinishedRun], Tables | None], ...] = (
    _test_tables,
    _mistakes,
    _label_embeddings,
    _figures,
    _model,
)


def write_run(run: FinishedRun, wandb_logger: RunWandbLogger | None, *, draw: bool = True) -> None:
    """Write all outputs of a run, and log to W&B what it keeps of them.

    Args:
        run: the finished run.
        wandb_logger: its W&B logger; None without one.
        draw: whether to draw the pictures, which takes as long as a small training.
    """
    outputs = [output for output in OUTPUTS if draw or output is not _figures]
    tables = {name: table for output in outputs for name, table in (output(run) or {}).items()}
    write_json(run.folder.result, run.result)  # last: a folder with it is complete
    if wandb_logger:
        log_finished(wandb_logger, run.folder, run.result, tables, run.datamodule.split_ids())
