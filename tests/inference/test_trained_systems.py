"""Runs of every system: ``ptmt evaluate`` gives their models the scores that they had when the run ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from every_system import PEERS
from helpers import start, toy_arguments

from ptmt_lightning.cli import main

SMALL = {"bert_ml": ["model.num_layers=2"], "gacaps": ["model.num_features=16", "model.capsule_size=8"]}


@pytest.mark.slow
@pytest.mark.parametrize("system", PEERS)
def test_scores_are_those_of_the_run(system: str, toy_folder: Path, tmp_path: Path) -> None:
    settings = ["optimizer=adamw", "optimizer.learning_rate=5e-3", "model.tune_threshold=level", "trainer.max_epochs=2"]
    done = start(tmp_path, *toy_arguments(toy_folder), f"model={system}", *settings, *SMALL.get(system, []))
    assert done.returncode == 0, done.stderr
    assert "/model texts.txt -o labels.jsonl" in done.stdout
    [run_dir] = (tmp_path / "outputs/toy" / system).iterdir()
    assert "Classifier.from_pretrained(" in (run_dir / "model/README.md").read_text()
    main(["evaluate", str(run_dir / "model"), str(toy_folder), "-o", str(tmp_path / "scores")])
    found = json.loads((tmp_path / "scores/evaluation.json").read_text())
    result = json.loads((run_dir / "result.json").read_text())
    assert found["metrics"] == pytest.approx(result["test"], abs=1e-6)
    assert found["thresholds"] == result["thresholds"]
    assert (tmp_path / "scores/predictions.jsonl").read_text() == (run_dir / "predictions.jsonl").read_text()
