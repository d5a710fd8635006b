"""A run from Python, with nothing set but data, backbone and system: it leaves what the command line leaves."""

from __future__ import annotations

import copy
import json
import pickle
from functools import partial
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ptmt_lightning.backbones import FromScratch
from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.inference import Classifier
from ptmt_lightning.launch.resume import resumed
from ptmt_lightning.models.base import HTCModel
from ptmt_lightning.models.bert import BERTClassifier
from ptmt_lightning.models.bert_ml import BERTML
from ptmt_lightning.models.frozen import FrozenEncoder
from ptmt_lightning.models.gacaps import GACaps
from ptmt_lightning.models.hbgl import HBGL
from ptmt_lightning.models.hpt import HPT
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.run_folder.finished import differing, find_runs
from ptmt_lightning.run_folder.paths import RunFolder
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
    assert (result["dataset"], result["model"], result["loss"]) == ("toy", "ptmt", "wasl")
    assert {path.name for path in run_dir.iterdir()} == {
        "config.yaml", "figures", "label_embeddings.csv", "metrics.csv", "mistakes.csv", "model", "per_label.csv",
        "predictions.jsonl", "reliability.csv", "result.json",
    }  # fmt: skip
    [found], left_out = find_runs([tmp_path])
    assert left_out == []
    assert found.result == json.loads((run_dir / "result.json").read_text()) == result
    assert Classifier.from_pretrained(run_dir / "model").predict("m n", top_k=1)


def test_the_same_script_again_gives_the_same_run(toy_folder: Path, tmp_path: Path) -> None:
    results = []
    for name in ("one", "two"):
        data = HTCDataModule(str(toy_folder), cache_dir=str(tmp_path / "cache"))
        model = build(data, FromScratch(), PTMT, seed=3)
        trainer = make_trainer(tmp_path / name, max_epochs=2, accelerator="cpu", enable_progress_bar=False)
        results.append(train(datamodule=data, model=model, run_dir=str(tmp_path / name), trainer=trainer))
    assert [result["seed"] for result in results] == [3, 3]
    assert results[0]["test"] == results[1]["test"]


def test_runs_with_other_settings_are_told_apart(toy_folder: Path, tmp_path: Path) -> None:
    for rate in (1e-3, 1e-4):
        data = HTCDataModule(str(toy_folder), cache_dir=str(tmp_path / "cache"))
        model = build(data, FromScratch(), partial(PTMT, optimizer=LinearAdamW(learning_rate=rate)))
        trainer = make_trainer(tmp_path / f"runs/{rate}", max_epochs=1, accelerator="cpu", enable_progress_bar=False)
        train(datamodule=data, model=model, run_dir=tmp_path / f"runs/{rate}", trainer=trainer)
    found, _ = find_runs([tmp_path / "runs"])
    assert differing(found) == ["optimizer.learning_rate"]


def test_a_second_run_into_one_folder_is_refused_or_replaces_the_first(toy_folder: Path, tmp_path: Path) -> None:
    def once() -> dict[str, object]:
        data = HTCDataModule(str(toy_folder), cache_dir=str(tmp_path / "cache"))
        model = build(data, FromScratch(), PTMT)
        trainer = make_trainer(tmp_path / "run", max_epochs=1, accelerator="cpu", enable_progress_bar=False)
        return train(datamodule=data, model=model, run_dir=tmp_path / "run", trainer=trainer, keep_checkpoints=True)

    first = once()
    curves = (tmp_path / "run/metrics.csv").read_text()
    with pytest.raises(ValueError, match="holds a finished run; give another folder"):
        once()
    RunFolder(tmp_path / "run").clear()
    again = once()
    assert again["test"] == first["test"]
    assert len((tmp_path / "run/metrics.csv").read_text().splitlines()) == len(curves.splitlines())
    with pytest.raises(ValueError, match=r"that run was started from Python; go on with train\(resume=True\)"):
        resumed(OmegaConf.create({"resume": str(tmp_path / "run")}), tmp_path / "run")


def test_what_would_fail_later_is_refused_first(toy_folder: Path, tmp_path: Path) -> None:
    data = HTCDataModule(str(toy_folder), cache_dir=str(tmp_path / "cache"))
    model = build(data, FromScratch(), PTMT)
    trainer = make_trainer(tmp_path / "run", monitor="val/h_f1_macr", accelerator="cpu")
    with pytest.raises(ValueError, match=r"^monitor='val/h_f1_macr': no such metric; did you mean 'val/h_f1_macro'\?"):
        train(datamodule=data, model=model, run_dir=tmp_path / "run", trainer=trainer)
    with pytest.raises(ValueError, match=r"^the data are not connected to a model; make it with ptmt_lightning"):
        train(datamodule=HTCDataModule(str(toy_folder)), model=model, run_dir=tmp_path / "run")
    trainer = make_trainer(tmp_path / "run", limit_val_batches=0, accelerator="cpu")
    with pytest.raises(ValueError, match=r"^trainer.limit_val_batches=0: expected some validation, which chooses"):
        train(datamodule=data, model=model, run_dir=tmp_path / "run", trainer=trainer)
    assert not (tmp_path / "run/config.yaml").exists()


def test_a_model_can_be_copied_and_pickled(toy_folder: Path, tmp_path: Path) -> None:
    model = build(HTCDataModule(str(toy_folder), cache_dir=str(tmp_path / "cache")), FromScratch(), PTMT)
    copied, pickled = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    for other in (copied, pickled):
        assert other.label_loss.level_weights == model.label_loss.level_weights
        assert other.taxonomy.names == model.taxonomy.names


def test_without_test_batches_there_is_no_test(toy_folder: Path, tmp_path: Path) -> None:
    data = HTCDataModule(str(toy_folder), cache_dir=str(tmp_path / "cache"))
    model = build(data, FromScratch(), PTMT)
    settings = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "limit_test_batches": 0}
    trainer = make_trainer(tmp_path / "run", plugins=[], **settings)
    assert train(datamodule=data, model=model, run_dir=tmp_path / "run", trainer=trainer)["test"] == {}
    assert (tmp_path / "run/model").is_dir()


@pytest.mark.parametrize("system", [BERTClassifier, BERTML, HBGL, GACaps, HPT, FrozenEncoder])
def test_every_system_needs_no_settings(system: type[HTCModel], toy_folder: Path, tmp_path: Path) -> None:
    data = HTCDataModule(str(toy_folder), cache_dir=str(tmp_path / "cache"))
    model = build(data, FromScratch(num_layers=3), system)
    batch = next(iter(data.train_dataloader()))
    assert model.loss_terms(batch)["loss"].isfinite()
