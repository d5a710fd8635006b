"""Tables and pictures over the seeds of an experiment."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pandas as pd
from conftest import ROOT_DIR
from matplotlib.image import imread
from warm import warm_python


def results(path: Path, variants: dict[str | None, list[float]], shares: list[float]) -> Path:
    """Scores by seed of each variant; each share adds a tenth; validation scores are others."""
    pd.DataFrame(
        {
            "dataset": "toy", "model": "ptmt", "variant": variant, "seed": seed, "train_fraction": share, "steps": 7,
            "split": split, "h_f1_macro": score + 0.1 * index - (split == "val"), "h_f1_micro": 0.5, "h_auprc": 0.5,
        }
        for variant, scores in variants.items()
        for seed, score in enumerate(scores)
        for index, share in enumerate(shares)
        for split in ("val", "test")
    ).to_csv(path, index=False)  # fmt: skip
    return path


def summarize(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [warm_python(), str(ROOT_DIR / "experiments/summarize.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_table_has_mean_deviation_and_paired_difference(tmp_path: Path) -> None:
    path = results(tmp_path / "results.csv", {"full": [0.5, 0.7], "less": [0.4, 0.5]}, [1.0])
    done = summarize(str(path), "--against", "full")
    assert done.stdout.splitlines() == [
        "| dataset | variant | share | steps | seeds | h_f1_macro | h_f1_micro | h_auprc | difference |",
        "|---|---|---|---|---|---|---|---|---|",
        "| toy | full | 1 | 7 | 2 | 0.6000 ± 0.1414 | 0.5000 ± 0.0000 | 0.5000 ± 0.0000 | +0.0000 ± 0.0000 |",
        "| toy | less | 1 | 7 | 2 | 0.4500 ± 0.0707 | 0.5000 ± 0.0000 | 0.5000 ± 0.0000 | -0.1500 ± 0.0707 |",
    ], done.stderr
    assert imread(tmp_path / "results.png").std() > 0
    assert summarize(str(path), "--split", "val").stdout.count("-0.4000") == 1
    assert "no such variant; known: full, less" in summarize(str(path), "--against", "nothing").stderr


def test_rows_that_differ_in_more_than_seeds_are_refused(tmp_path: Path) -> None:
    path = results(tmp_path / "results.csv", {"full": [0.5, 0.7]}, [1.0])
    table = pd.read_csv(path)
    table.assign(learning_rate=[1e-4, 1e-4, 3e-4, 3e-4]).to_csv(path, index=False)
    assert summarize(str(path)).stderr.strip() == (
        "error: toy, full, 1.0: learning_rate 0.0001, 0.0003; expected runs that differ in their seeds alone"
    )
    table.assign(seed=0).to_csv(path, index=False)
    assert "error: toy, full, 1.0: a seed twice; expected" in summarize(str(path)).stderr
    table[table["split"] == "val"].to_csv(path, index=False)
    assert summarize(str(path)).stderr.strip() == f"error: {path} has no rows of --split test"


def test_shares_of_the_training_set_become_curves(tmp_path: Path) -> None:
    path = results(tmp_path / "results.csv", {None: [0.5]}, [0.03125, 0.375, 1.0])
    done = summarize(str(path))
    rows = [line.split(" | ")[1:6] for line in done.stdout.splitlines()[2:]]
    assert rows == [
        ["ptmt", "0.03125", "7", "1", "0.5000"], ["ptmt", "0.375", "7", "1", "0.6000"],
        ["ptmt", "1", "7", "1", "0.7000"],
    ], done.stderr  # fmt: skip
    assert imread(tmp_path / "results.png").std() > 0
