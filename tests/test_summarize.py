"""Tables and pictures over the seeds of an experiment."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
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


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that draws, as the script finds it."""
    monkeypatch.syspath_prepend(ROOT_DIR / "experiments")
    return importlib.import_module("pictures")


PAPER = pd.DataFrame({"dataset": ["toy", "bgc"], "variant": "full", "train_fraction": 1.0, "h_f1_macro": [0.7, 0.4]})
TABLE = pd.DataFrame(
    {
        "dataset": "toy", "variant": ["less", "full", "one"], "train_fraction": 1.0, "seeds": [2, 2, 1],
        "h_f1_macro_mean": [0.4, 0.6, 0.5], "h_f1_macro_std": [0.1, 0.2, None],
        "difference_mean": [-0.2, 0.0, None], "difference_std": [0.05, 0.0, None],
    }
)  # fmt: skip


def test_dots_have_deviations_the_best_on_top_and_the_papers_beside(pictures: ModuleType) -> None:
    ours, papers = pictures.dots(TABLE, "h_f1_macro", PAPER).axes
    assert [text.get_text() for text in ours.get_yticklabels()] == ["less", "one (one seed)", "full"]
    assert [text.get_text() for text in ours.texts] == ["0.600"]
    lines = [collection.get_segments()[0][:, 0].tolist() for collection in ours.collections]
    assert lines == [pytest.approx([0.3, 0.5]), pytest.approx([0.4, 0.8])]  # one seed has no line
    assert not ours.patches  # and there are no bars
    hollow = [line for line in ours.lines if line.get_markerfacecolor() == "white"]
    assert [line.get_xydata().tolist() for line in hollow] == [[[0.7, 2]]]
    assert papers.get_title(loc="left") == "bgc, as the paper has it"
    assert ours.get_xlim() != papers.get_xlim()


def test_differences_leave_out_what_has_none(pictures: ModuleType) -> None:
    papers = pd.concat([PAPER, PAPER.assign(variant="less", h_f1_macro=[0.6, 0.45])])
    figure = pictures.dots(TABLE, "h_f1_macro", papers, "full")
    ours, bgc = figure.axes
    assert [text.get_text() for text in ours.get_yticklabels()] == ["less", "full"]
    assert ours.get_xlabel() == "h_f1_macro, difference to full"
    assert [text.get_text() for text in bgc.texts] == ["+0.050"]


def test_curves_have_a_band_and_the_papers_a_panel_of_their_own(pictures: ModuleType) -> None:
    table = pd.concat([TABLE[:2], TABLE[:2].assign(train_fraction=0.5, h_f1_macro_mean=[0.1, 0.2])])
    ours, papers = pictures.curves(table, "h_f1_macro", PAPER[1:]).axes
    assert {line.get_label(): line.get_ydata().tolist() for line in ours.lines} == {
        "less": [0.1, 0.4],
        "full": [0.2, 0.6],
    }
    low, high = (float(f(ours.collections[1].get_paths()[0].vertices[:, 1])) for f in (min, max))
    assert (low, high) == (0.0, 0.8)
    assert [line.get_label() for line in papers.lines] == ["full, the paper's"]
    assert papers.lines[0].get_color() == ours.lines[1].get_color()
