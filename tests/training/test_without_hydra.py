"""A run from Python, with nothing set but data, backbone and system: it leaves what the command line leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ptmt_lightning.backbones import FromScratch
from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.inference import Classifier
from ptmt_lightning.models.base import HTCModel
from ptmt_lightning.models.bert import BERTClassifier
from ptmt_lightning.models.bert_ml import BERTML
from ptmt_lightning.models.gacaps import GACaps
from ptmt_lightning.models.hbgl import HBGL
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.run_folder.finished import find_runs
from ptmt_lightning.training.build import build
from ptmt_lightning.training.train import train
from ptmt_lightning.training.trainer import make_trainer


def test_a_run_with_defaults(toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_dir = tmp_path / "mine"
    data = HTCDataModule(str(toy_folder))
    model = build(data, FromScratch(), PTMT)
    trainer = make_trainer(run_dir, max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    result = train(datamodule=data, model=model, run_dir=run_dir, trainer=trainer)
    assert (result["dataset"], result["model"], result["loss"]) == ("toy", "ptmt", "WASL")
    assert {path.name for path in run_dir.iterdir()} == {
        "checkpoints", "config.yaml", "figures", "label_embeddings.csv", "metrics.csv", "model", "per_label.csv",
        "predictions.jsonl", "reliability.csv", "result.json",
    }  # fmt: skip
    [found], left_out = find_runs([tmp_path])
    assert left_out == []
    assert found.result == json.loads((run_dir / "result.json").read_text()) == result
    assert Classifier.from_pretrained(run_dir / "model").predict("m n", top_k=1)


@pytest.mark.parametrize("system", [BERTClassifier, BERTML, HBGL, GACaps])
def test_every_system_needs_no_settings(system: type[HTCModel], toy_folder: Path, tmp_path: Path) -> None:
    data = HTCDataModule(str(toy_folder), cache_dir=str(tmp_path / "cache"))
    model = build(data, FromScratch(num_layers=3), system)
    batch = next(iter(data.train_dataloader()))
    assert model.loss_terms(batch)["loss"].isfinite()
