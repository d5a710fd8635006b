"""Checkpoints are whole or absent, and a damaged one falls back to the one before it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from ptmt_lightning.run_folder.checkpoint_files import newest
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.training.checkpoints import LastCheckpoint, WholeCheckpointIO


def save(path: Path, step: int, size: int = 1) -> None:
    WholeCheckpointIO().save_checkpoint({"global_step": step, "weights": torch.zeros(size)}, path)


def test_the_last_one_becomes_the_previous_one(tmp_path: Path) -> None:
    run, folder = RunFolder(tmp_path), tmp_path / "checkpoints"
    assert not run.has_checkpoint
    for step in (1, 2, 3):
        save(folder / "last.ckpt", step)
        save(folder / "best.ckpt", step)
    assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    path, content = newest(run)
    assert (path.name, content["global_step"]) == ("last.ckpt", 3)
    path.unlink()  # killed between the two renames
    assert run.has_checkpoint
    assert newest(run)[1]["global_step"] == 2


def test_a_full_disk_leaves_the_earlier_checkpoints(tmp_path: Path, small_files: None) -> None:
    folder = tmp_path / "run/checkpoints"
    save(folder / "last.ckpt", 1)
    with pytest.raises(ValueError, match=rf"could not be written \(.*\); free space .* resume={tmp_path}/run$"):
        save(folder / "last.ckpt", 2, size=100_000)
    assert [path.name for path in folder.iterdir()] == ["last.ckpt"]
    assert newest(RunFolder(tmp_path / "run"))[1]["global_step"] == 1


@pytest.mark.parametrize("damage", ["cut", "empty", "noise"])
def test_a_damaged_one_falls_back_with_a_warning(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "checkpoints"
    for step in (1, 2):
        save(folder / "last.ckpt", step, size=5000)
    whole = (folder / "last.ckpt").read_bytes()
    (folder / "last.ckpt").write_bytes({"cut": whole[:9000], "empty": b"", "noise": b"\x13" * 9000}[damage])
    with caplog.at_level(logging.WARNING, logger="ptmt_lightning"):
        path, content = newest(RunFolder(tmp_path))
    assert (path.name, content["global_step"]) == ("previous.ckpt", 1)
    assert "last.ckpt is damaged" in caplog.text
    (folder / "previous.ckpt").write_bytes(b"")
    with pytest.raises(ValueError, match="no checkpoint there that can be read; start the run anew"):
        newest(RunFolder(tmp_path))


def test_leftovers_of_a_killed_process_go(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / ".model.abc/model").mkdir(parents=True)
    for name in ("checkpoints/.last.ckpt", "checkpoints/best.ckpt", ".result.json.x", "metrics.csv", ".env", ".git"):
        (tmp_path / name).touch()
    RunFolder(tmp_path).remove_leftovers()
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left == {"checkpoints", "checkpoints/best.ckpt", "metrics.csv", ".env", ".git"}


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"callbacks.last_checkpoint.every_minutes=-1: expected a number >= 0"):
        LastCheckpoint("x", every_minutes=-1)
    with pytest.raises(ValueError, match=r"callbacks.last_checkpoint.check_every=0: expected an integer >= 1"):
        LastCheckpoint("x", every_minutes=1, check_every=0)
