"""From the command line a run goes on for longer, and in the folder that it was moved to."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import TOY_DOCUMENTS, TOY_EDGES, write_folder
from helpers import only_run, start, toy_arguments
from omegaconf import OmegaConf

from ptmt_lightning.inference import Classifier


def test_a_finished_run_goes_on_for_longer_where_it_was_moved_to(toy_folder: Path, tmp_path: Path) -> None:
    done = start(tmp_path, *toy_arguments(toy_folder), "trainer.max_epochs=1", "logger=many", "model.alpha=0.1")
    assert done.returncode == 0, done.stderr
    old, run_dir = only_run(tmp_path), tmp_path / "it's elsewhere/a=1"
    first = json.loads((old / "result.json").read_text())
    run_dir.parent.mkdir()
    old.rename(run_dir)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    for length, message in (
        ("trainer.max_epochs=1", "error: trainer.max_epochs=1: the run has done 1 epochs; set it to more, or to -1"),
        ("trainer.max_steps=6", "error: trainer.max_steps=6: the run has done 6 steps; set it to more, or to -1"),
        ("trainer.max_epochs=many", "error: trainer.max_epochs='many': expected an integer >= -1"),
    ):
        refused = start(tmp_path, f"resume={run_dir}", length)
        assert refused.returncode != 0
        assert refused.stderr.startswith(message)
        assert len(refused.stderr.splitlines()) == 1
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before
    again = start(tmp_path, f"resume={run_dir}", "trainer.max_epochs=3")
    assert again.returncode == 0, again.stderr
    assert f"the run was moved here from {old}" in again.stdout
    assert "goes on with trainer.max_epochs=3 (was 1): the optimiser's state is kept" in again.stdout
    assert not old.exists()
    config, result = OmegaConf.load(run_dir / "config.yaml"), json.loads((run_dir / "result.json").read_text())
    assert config.trainer.max_epochs == 3
    assert str(old) not in (run_dir / "config.yaml").read_text()
    assert (result["epochs"], result["steps"]) == (3, 18)
    assert result["wandb_run_id"] == first["wandb_run_id"]
    assert pd.read_csv(run_dir / "metrics.csv")["step"].max() == 18
    pictures = [path for path in before if path.name == "learning_curves.png"]
    assert all(path.read_bytes() != before[path] for path in pictures if "figures" in path.parent.name)


@pytest.mark.slow
def test_a_new_run_starts_from_a_finished_one_on_a_grown_taxonomy(toy_folder: Path, tmp_path: Path) -> None:
    """By the command that a finished run without checkpoints names; and the new run can be resumed."""
    toy = [argument for argument in toy_arguments(toy_folder) if argument != "keep_checkpoints=true"]
    done = start(tmp_path, *toy, "trainer.max_epochs=1")
    assert done.returncode == 0, done.stderr
    run_dir = only_run(tmp_path)
    refused = start(tmp_path, f"resume={run_dir}", "trainer.max_epochs=3")
    assert refused.stderr.startswith(f"error: resume='{run_dir}': that run is finished and kept no checkpoints")
    words = refused.stderr.rstrip("`\n").split()[-2:]
    assert words == ["backbone=bert", f"backbone.name={run_dir}/model"]
    grown = write_folder(
        tmp_path / "grown", [*TOY_EDGES, ("C", "CB")], train=TOY_DOCUMENTS * 4, val=TOY_DOCUMENTS, test=TOY_DOCUMENTS
    )
    new = [word for word in toy_arguments(grown) if not word.startswith("backbone")]
    folder = tmp_path / "new"
    warm = start(tmp_path, *new, *words, f"hydra.run.dir={folder}", "trainer.max_epochs=1")
    assert warm.returncode == 0, warm.stderr
    assert f"warm start from {run_dir}/model: 11 labels are known and keep what was learnt, 1 are new" in warm.stdout
    again = start(tmp_path, f"resume={folder}", "trainer.max_epochs=2")
    assert again.returncode == 0, again.stderr
    assert Classifier.from_pretrained(folder / "model").taxonomy.labels[-1] == "AAA"
    assert json.loads((folder / "result.json").read_text())["epochs"] == 2
