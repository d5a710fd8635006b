"""The terminal at the end of a run."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from ptmt_lightning.run_folder.ending import next_commands, show, show_scores
from ptmt_lightning.run_folder.paths import RunFolder

NAMES = (
    "h_f1_macro", "h_f1_macro_harmonic", "h_f1_micro", "h_precision_micro", "h_recall_micro", "f1_macro", "f1_micro",
    "h_auprc", "exact_match",
)  # fmt: skip


def scores(levels: int, add: float = 0.0) -> dict[str, float]:
    """Scores of as many levels as are asked for, each another one."""
    names = [*NAMES, *(f"f1_{kind}_level_{level + 1}" for level in range(levels) for kind in ("macro", "micro"))]
    return {name: index / 100 + add for index, name in enumerate(names)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A finished run below the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    run = RunFolder(tmp_path / "outputs/toy/ptmt/2026-11-22_10-00-00-abcd")
    run.model.mkdir(parents=True)
    return run


def test_test_stands_beside_validation_and_each_level_is_a_row(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    show({"dataset": "toy", "model": "ptmt", "val": scores(2, 0.5), "test": scores(2)}, folder)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert [line.split() for line in lines[:4]] == [
        ["toy", "/", "ptmt"], ["metric", "test", "validation"], ["h_f1_macro", "0.0000", "0.5000"],
        ["h_f1_micro", "0.0200", "0.5200"],
    ]  # fmt: skip
    assert "level 2: f1_macro / f1_micro   0.1100 / 0.1200   0.6100 / 0.6200" in lines
    assert lines[-5:] == [
        f"run: {folder.path}",
        "next:",
        "  ptmt predict outputs/toy/ptmt/2026-11-22_10-00-00-abcd/model texts.txt -o labels.jsonl",
        "  ptmt serve outputs/toy/ptmt/2026-11-22_10-00-00-abcd/model",
        "  ptmt report outputs/toy/ptmt",
    ]


@pytest.mark.parametrize("levels", [1, 3, 6, 40])
@pytest.mark.parametrize("splits", [("val", "test"), ("val",)])
def test_it_is_one_screen_of_plain_text(
    levels: int, splits: tuple[str, ...], folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    show({"dataset": "toy", "model": "ptmt", "val": {}, "test": {}} | dict.fromkeys(splits, scores(levels)), folder)
    shown = capsys.readouterr().out
    assert shown.isascii()
    lines = shown.splitlines()
    assert sum(1 + max(0, len(line) - 1) // 80 for line in lines) <= 24
    table = lines[: next(index for index, line in enumerate(lines) if line.startswith("run:"))]
    assert max(map(len, table)) <= 80
    rows = len(NAMES) + levels
    assert (f"and {rows - 12} more rows" in shown) == (rows > 12)
    assert ("test" in lines[1]) == ("test" in splits)


def test_in_a_narrow_terminal_no_score_is_cut(
    folder: RunFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "44")
    show_scores("toy", {"test": scores(2), "val": scores(2, 0.5)})
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 44
    assert "0.1100 / 0.1200   0.6100 / 0.6200" in shown
    assert "…" not in shown


def test_a_metric_that_one_split_lacks(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    show_scores("toy", {"test": {"h_f1_macro": 0.5}, "val": {"h_f1_macro": 0.5, "mine": 0.25}})
    assert capsys.readouterr().out.splitlines()[-1].split() == ["mine", "-", "0.2500"]


def test_only_what_can_be_used_further_is_offered(folder: RunFolder) -> None:
    assert next_commands("mine", folder.path) == ["ptmt report outputs/toy/ptmt"]
    assert [command.split()[1] for command in next_commands("hbgl", folder.path)] == ["predict", "serve", "report"]
    odd = folder.path.parent / "it's mine"
    assert shlex.split(next_commands("ptmt", odd)[1])[2:] == ["outputs/toy/ptmt/it's mine/model"]


def test_without_a_saved_model_nothing_comes_next(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    folder.model.rmdir()
    show({"dataset": "toy", "model": "ptmt", "val": scores(1), "test": {}}, folder)
    assert capsys.readouterr().out.splitlines()[-1] == f"run: {folder.path}"
