"""Every system through the command line: it learns by heart, leaves its folder, and trains on two ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import start
from learnable import write_learnable

SYSTEMS = {
    "ptmt": [],
    "bert": [],
    "bert_ml": ["backbone.num_layers=3"],
    "hbgl": ["model.pretraining_steps=20"],
    "hpt": ["model.mlm_weight=0.1"],
    "frozen": ["backbone.hidden_size=256", "optimizer.learning_rate=3e-2"],
    "gacaps": ["model.num_features=32", "model.capsule_size=8", "model.frozen_epochs=1"],
}
SETTINGS = [
    "backbone=tiny", "backbone.hidden_size=64", "backbone.dropout=0", "optimizer=adamw", "optimizer.learning_rate=3e-3",
    "optimizer.new_rate_factor=1", "trainer=cpu", "trainer.enable_progress_bar=false", "callbacks.progress_bar=null",
    "callbacks.early_stopping=null",
]  # fmt: skip


def quick_for(system: str) -> list[Any]:
    """Return all systems, of which only this one is in the quick tests."""
    return [name if name == system else pytest.param(name, marks=pytest.mark.slow) for name in SYSTEMS]


def write_documents(tmp_path: Path, size: int = 64) -> list[str]:
    """Arguments for so many documents, the same in every split."""
    folder = write_learnable(tmp_path / "data", size)
    return ["dataset=jsonl", f"dataset.path={folder}", "dataset.name=some", "dataset.batch_size=8"]


@pytest.fixture
def documents(tmp_path: Path) -> list[str]:
    return write_documents(tmp_path)


@pytest.mark.parametrize("system", quick_for("ptmt"))
def test_it_learns_documents_by_heart(system: str, tmp_path: Path) -> None:
    """64 documents; 8 with GACaps, whose routing takes five minutes for 64 (0.998 after 240 epochs)."""
    documents = write_documents(tmp_path, 8 if system == "gacaps" else 64)
    epochs = {"hbgl": 120, "gacaps": 400}.get(system, 80)
    length = [f"trainer.max_epochs={epochs}", "trainer.check_val_every_n_epoch=40"]
    done = start(tmp_path, *documents, *SETTINGS, *length, f"model={system}", *SYSTEMS[system])
    assert done.returncode == 0, done.stderr
    [run_dir] = (tmp_path / "outputs/some" / system).iterdir()
    result = json.loads((run_dir / "result.json").read_text())
    assert result["model"] == system
    assert result["test"]["h_f1_micro"] > 0.99, result["test"]
    settings = json.loads((run_dir / "model" / f"{system}.json").read_text())
    assert settings["thresholds"] == [0.5, 0.5, 0.5]
    assert ("label pretraining: loss" in done.stdout) == (system == "hbgl")


@pytest.mark.parametrize("system", quick_for("bert")[1:])
def test_two_ranks(system: str, documents: list[str], tmp_path: Path) -> None:
    """Two steps: a parameter without a gradient would stop the second. PTMT's ranks are in training/."""
    ranks = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_steps=2"]
    settings = [setting for setting in SETTINGS if setting != "trainer=cpu"]
    done = start(tmp_path, *documents, *settings, *ranks, f"model={system}", *SYSTEMS[system])
    assert done.returncode == 0, done.stderr
    [run_dir] = (tmp_path / "outputs/some" / system).iterdir()
    result = json.loads((run_dir / "result.json").read_text())
    assert (result["num_devices"], result["steps"]) == (2, 2)


def test_an_experiment_of_another_system_is_refused(documents: list[str], tmp_path: Path) -> None:
    done = start(tmp_path, *documents, *SETTINGS, "model=bert", "experiment=without_mlm")
    assert done.returncode == 1
    assert done.stderr.startswith("error: model.alpha: BERTClassifier has no such setting; leave out the experiment")
