"""What is written when a run has ended."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.metrics import per_label, reliability
from ptmt_lightning.models.base import HTCModel
from ptmt_lightning.run_folder import figures, label_embeddings
from ptmt_lightning.run_folder.mistakes import wrong_predictions
from ptmt_lightning.run_folder.model_card import model_card
from ptmt_lightning.run_folder.predictions import write_predictions
from ptmt_lightning.training.loggers import RunWandbLogger
from ptmt_lightning.training.wandb_summary import log_finished
from ptmt_lightning.utils.files import write_json, write_text


def write_run(
    run_dir: Path,
    datamodule: HTCDataModule,
    model: HTCModel,
    result: Mapping[str, Any],
    wandb_logger: RunWandbLogger | None,
) -> None:
    tables = {}  # for W&B
    if model.test_results:
        ids = datamodule.document_ids("test", [prediction.row for prediction in model.test_predictions])
        write_predictions(run_dir / "predictions.jsonl", model.test_predictions, ids, datamodule.taxonomy)
        table = pd.DataFrame(per_label(datamodule.taxonomy, model.test_counts))
        write_text(run_dir / "per_label.csv", table.to_csv(index=False))
        write_text(run_dir / "reliability.csv", pd.DataFrame(reliability(model.test_scored)).to_csv(index=False))
        tables["test/per_label"] = table
        if wandb_logger:
            wrong = wrong_predictions(model.test_predictions, ids, datamodule.texts("test"), datamodule.taxonomy)
            tables["test/wrong_predictions"] = wrong
    if embeddings := model.label_embeddings():
        table = label_embeddings.table(*embeddings, datamodule.taxonomy)
        write_text(run_dir / "label_embeddings.csv", table.to_csv(index=False))
        tables["label_embeddings"] = table
    figures.draw(run_dir)
    with tempfile.TemporaryDirectory(prefix=".model.", dir=run_dir) as temporary:
        folder = Path(temporary) / "model"
        model.save_pretrained(folder)
        write_text(folder / "README.md", model_card(result, datamodule.taxonomy))
        shutil.rmtree(run_dir / "model", ignore_errors=True)
        folder.rename(run_dir / "model")
    write_json(run_dir / "result.json", result)  # last: a folder with it is complete
    if wandb_logger:
        log_finished(wandb_logger, run_dir, result, tables, datamodule.split_ids())
