"""A run folder belongs to one run, its weights to one taxonomy, its metric to one direction."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import only_run, start, toy_arguments
from omegaconf import OmegaConf

from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.run_folder.curves import direction_of
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.training.checks import check_monitor


def fill(folder: RunFolder, *, finished: bool = False, checkpoint: bool = False, model: bool = False) -> None:
    """Make a folder look like that of a run."""
    for path in (folder.metrics, folder.path / "notes.txt", folder.job_log):
        path.write_text("x")
    folder.config.write_text("run:\n  dir: here\n")
    for path in (folder.figures, folder.checkpoints, folder.model, folder.path / "wandb"):
        path.mkdir()
    if finished:
        folder.result.write_text("{}")
    if checkpoint:
        folder.previous_checkpoint.write_text("x")
    if model:
        (folder.model / "ptmt.json").write_text("{}")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"finished": True, "checkpoint": True}, "holds a finished run; give another folder, go on with resume="),
        ({"finished": True}, "holds a finished run; give another folder, or replace it with overwrite=true$"),
        ({"checkpoint": True}, "holds a run that was cut off"),
        ({"model": True}, "holds a run that was cut off"),
    ],
)
def test_a_folder_that_holds_a_run_is_refused_or_emptied(tmp_path: Path, state: dict[str, bool], message: str) -> None:
    folder = RunFolder(tmp_path)
    fill(folder, **state)
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=rf"^hydra\.run\.dir='{tmp_path}': {message}"):
        folder.check_free()
    assert {path.name for path in tmp_path.iterdir()} == before
    folder.clear()
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "job.log"}


@pytest.mark.parametrize("config", [None, "x", "model: mine"])
def test_a_folder_that_only_looks_like_a_run_is_not_emptied(tmp_path: Path, config: str | None) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/mine.txt").write_text("precious")
    if config:
        (tmp_path / "config.yaml").write_text(config)
    with pytest.raises(ValueError, match=r"^hydra\.run\.dir=.*: holds .*, and no config\.yaml of a run; give another"):
        RunFolder(tmp_path).clear()
    assert (tmp_path / "model/mine.txt").read_text() == "precious"


def test_what_is_left_of_a_run_that_can_not_go_on_is_removed(tmp_path: Path) -> None:
    fill(RunFolder(tmp_path))
    (tmp_path / "checkpoints/best.ckpt").write_text("x")  # written before the first one to go on from
    RunFolder(tmp_path).check_free()
    RunFolder(tmp_path).clear()
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "job.log"}
    RunFolder(tmp_path / "not/there").check_free()
    RunFolder(tmp_path / "not/there").clear()


@pytest.mark.slow
def test_a_second_run_into_the_same_folder_from_the_command_line(toy_folder: Path, tmp_path: Path) -> None:
    arguments = [*toy_arguments(toy_folder), f"hydra.run.dir={tmp_path / 'mine'}", "trainer.max_epochs=1"]
    first = start(tmp_path, *arguments)
    assert first.returncode == 0, first.stderr
    before = (tmp_path / "mine/metrics.csv").read_text()
    second = start(tmp_path, *arguments, "seed=1")
    assert second.returncode == 1
    assert second.stderr.startswith(f"error: hydra.run.dir='{tmp_path}/mine': holds a finished run; give another")
    assert (tmp_path / "mine/metrics.csv").read_text() == before
    for wrong in ("dataset.path=/nowhere", "model.alpha=2", "trainer.limit_val_batches=0"):
        assert start(tmp_path, *arguments, "overwrite=true", wrong).returncode == 1
        assert (tmp_path / "mine/metrics.csv").read_text() == before, wrong
    third = start(tmp_path, *arguments, "seed=1", "overwrite=true")
    assert third.returncode == 0, third.stderr
    assert json.loads((tmp_path / "mine/result.json").read_text())["seed"] == 1
    assert len((tmp_path / "mine/metrics.csv").read_text().splitlines()) == len(before.splitlines())


def test_a_run_is_not_resumed_with_labels_in_another_order(toy_folder: Path, tmp_path: Path) -> None:
    done = start(tmp_path, *toy_arguments(toy_folder))
    assert done.returncode == 0, done.stderr
    run_dir = only_run(tmp_path)
    (run_dir / "result.json").unlink()
    edges = (toy_folder / "taxonomy.tsv").read_text().splitlines()
    (toy_folder / "taxonomy.tsv").write_text("\n".join(reversed(edges)) + "\n")
    again = start(tmp_path, f"resume={run_dir}")
    assert again.returncode == 1
    assert "error: the checkpoint is of another taxonomy: nodes, their order or their parents have" in again.stderr
    assert "restore taxonomy.tsv, or start the run anew" in again.stderr
    assert "Traceback" not in again.stderr
    shutil.rmtree(run_dir / "wandb", ignore_errors=True)


def test_a_checkpoint_knows_its_vocabulary(toy_ptmt: PTMT) -> None:
    checkpoint: dict[str, Any] = {}
    toy_ptmt.on_save_checkpoint(checkpoint)
    toy_ptmt.on_load_checkpoint(checkpoint)
    with pytest.raises(ValueError, match="the checkpoint is of another vocabulary, and tokens would get"):
        toy_ptmt.on_load_checkpoint(checkpoint | {"vocabulary_digest": "another"})


def test_a_checkpoint_knows_its_taxonomy(toy_ptmt: PTMT) -> None:
    checkpoint: dict[str, object] = {}
    toy_ptmt.on_save_checkpoint(checkpoint)
    toy_ptmt.on_load_checkpoint(checkpoint)
    toy_ptmt.on_load_checkpoint({})  # of an earlier version
    with pytest.raises(ValueError, match="the checkpoint is of another taxonomy"):
        toy_ptmt.on_load_checkpoint({"taxonomy_fingerprint": "another"})


def test_equal_taxonomies_alone_have_equal_fingerprints() -> None:
    edges = [("ROOT", "A"), ("ROOT", "B"), ("A", "C"), ("B", "D")]
    one = Taxonomy(edges).fingerprint
    assert Taxonomy([*edges]).fingerprint == one
    others = [
        [*edges, ("A", "D")],  # a second parent
        [("ROOT", "B"), ("ROOT", "A"), ("A", "C"), ("B", "D")],  # another order
        [("ROOT", "A"), ("ROOT", "B"), ("B", "C"), ("A", "D")],  # other parents
        edges[:-1],
        [("ROOT", "A"), ("ROOT", "B"), ("A", "C"), ("B", "E")],
        [*edges, ("ROOT", "D")],  # a top node, too
    ]
    assert len({one, *(Taxonomy(other).fingerprint for other in others)}) == 7


@pytest.mark.parametrize(
    ("name", "direction"),
    [("val/h_f1_macro", "max"), ("val/label_loss", "min"), ("train/loss", "min"), ("train/count_l1", "min"),
     ("train/documents_per_second", "max"), ("val/h_auprc", "max")],
)  # fmt: skip
def test_the_direction_is_the_metrics_own(name: str, direction: str, toy_ptmt: PTMT) -> None:
    assert direction_of(name) == direction
    check_monitor(name, toy_ptmt, direction)
    wrong = {"min": "max", "max": "min"}[direction]
    with pytest.raises(
        ValueError, match=rf"^mode='{wrong}' with monitor='{name}': expected '{direction}', or the worst"
    ):
        check_monitor(name, toy_ptmt, wrong)


def test_a_loss_as_monitor_keeps_its_lowest_point(toy_folder: Path, tmp_path: Path) -> None:
    done = start(tmp_path, *toy_arguments(toy_folder), "monitor=val/label_loss", "trainer.max_epochs=3")
    assert done.returncode == 0, done.stderr
    run_dir = only_run(tmp_path)
    config = OmegaConf.load(run_dir / "config.yaml")
    assert config.mode == config.callbacks.checkpoint.mode == config.callbacks.early_stopping.mode == "min"
    lines = (run_dir / "metrics.csv").read_text().splitlines()
    column = lines[0].split(",").index("val/label_loss")
    losses = [float(line.split(",")[column]) for line in lines[1:] if line.split(",")[column]]
    assert json.loads((run_dir / "result.json").read_text())["best_score"] == pytest.approx(min(losses))
    wrong = start(tmp_path, *toy_arguments(toy_folder), "monitor=val/label_loss", "mode=max")
    assert wrong.stderr.startswith("error: mode='max' with monitor='val/label_loss': expected 'min'")
