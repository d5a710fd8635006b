"""The runner of experiments: what is done is not run again, what failed does not stop the rest."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT_DIR
from warm import warm_python

pytestmark = pytest.mark.slow

GRID = """
common: [dataset=jsonl, dataset.name=toy, "dataset.path={data}/toy", dataset.batch_size=4, backbone=tiny,
         backbone.hidden_size=32, trainer=cpu, trainer.max_epochs=1, trainer.enable_progress_bar=false,
         callbacks.progress_bar=null, logger=none]
axes:
  variant: {good: [], bad: [loss.margin=2]}
  seed: {0: [seed=0], 1: [seed=1]}
"""


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [warm_python(), str(ROOT_DIR / "experiments/grid.py"), str(tmp_path / "trial/grid.yaml")]
    return subprocess.run(
        [*command, "--data", str(tmp_path), *arguments],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_runs_are_made_once_and_failures_named(toy_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "trial").mkdir()
    (tmp_path / "trial/grid.yaml").write_text(GRID)
    assert run(tmp_path, "--dry-run").stdout.splitlines() == [
        "[1/4] good-0", "[2/4] good-1", "[3/4] bad-0", "[4/4] bad-1"
    ]  # fmt: skip
    assert not (tmp_path / "outputs").exists()

    first = run(tmp_path, "--only", "seed=0")
    outputs = tmp_path / "outputs/experiments/trial"
    assert first.returncode == 1
    assert first.stderr.strip() == f"failed: {outputs / 'bad-0'}"
    assert "error: loss.margin=2" in (outputs / "bad-0.log").read_text()
    table = pd.read_csv(tmp_path / "trial/results.csv")
    assert table[["variant", "seed", "split"]].to_numpy().tolist() == [["good", 0, "test"], ["good", 0, "val"]]
    done = (outputs / "good-0/result.json").stat().st_mtime_ns

    second = run(tmp_path, "--only", "variant=good", "optimizer.learning_rate=2e-3")
    assert second.returncode == 0, second.stderr
    assert second.stdout.splitlines() == ["[2/2] good-1"]
    assert (outputs / "good-0/result.json").stat().st_mtime_ns == done
    table = pd.read_csv(tmp_path / "trial/results.csv")
    assert table["run"].tolist() == ["good-0", "good-0", "good-1", "good-1"]
    assert table["seed"].tolist() == [0, 0, 1, 1]
    assert table["learning_rate"].tolist() == [1e-3, 1e-3, 2e-3, 2e-3]

    before = (tmp_path / "trial/results.csv").read_text()
    (tmp_path / "trial/results.csv").unlink()
    assert run(tmp_path, "--collect").returncode == 0
    assert (tmp_path / "trial/results.csv").read_text() == before

    shutil.rmtree(outputs)  # the rows are enough
    assert run(tmp_path, "--dry-run", "--only", "variant=good").stdout == ""

    assert "no such axis" in run(tmp_path, "--only", "seeds=0").stderr
    assert "--only variant=ugly: no such choice" in run(tmp_path, "--only", "variant=ugly").stderr
