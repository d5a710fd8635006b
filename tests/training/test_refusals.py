"""What would end a run later, or leave it without sense, is refused before it begins or told when it ends."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TOY_DOCUMENTS, TOY_EDGES, write_folder
from helpers import FAST, make, make_trainer, run

from ptmt_lightning.decisions import per_level
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.run_folder.checkpoint_files import newest
from ptmt_lightning.run_folder.curves import direction_of, mode_of
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.training.callbacks import EpochLog
from ptmt_lightning.training.checks import check_monitor, check_run
from ptmt_lightning.training.loggers import _shortened, _tags, wandb_logger
from ptmt_lightning.training.train import train


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"limit_train_batches": 0.1},
            r"^trainer.limit_train_batches=0.1: expected at least one batch, and 0.1 of 6 is none; set a number of",
        ),
        ({"limit_val_batches": 0.3}, r"^trainer.limit_val_batches=0.3: expected at least one batch, and 0.3 of 1 is"),
        ({"limit_test_batches": 0.5}, r"^trainer.limit_test_batches=0.5: expected at least one batch, and 0.5 of 1 is"),
        ({"limit_train_batches": 0}, r"^trainer.limit_train_batches=0: expected some training; leave it out$"),
        ({"limit_val_batches": 0}, r"^trainer.limit_val_batches=0: expected some validation"),
        (
            {"val_check_interval": 7},
            r"^trainer.val_check_interval=7: expected at most the 6 batches of an epoch; lower it, or set",
        ),
        (
            {"val_check_interval": 6, "limit_train_batches": 0.5},
            r"^trainer.val_check_interval=6: expected at most the 3 batches of an epoch",
        ),
    ],
)
def test_limits_that_leave_nothing_are_refused(
    settings: dict[str, Any], message: str, toy_folder: Path, tmp_path: Path
) -> None:
    module, model = make(toy_folder, tmp_path)
    with pytest.raises(ValueError, match=message):
        check_run(make_trainer(tmp_path / "run", **settings), module, model)


@pytest.mark.parametrize(
    "settings",
    [
        {"limit_train_batches": 0.2}, {"limit_train_batches": 1}, {"val_check_interval": 6},
        {"val_check_interval": 0.1}, {"val_check_interval": 7, "check_val_every_n_epoch": None},
        {"limit_test_batches": 0}, {"overfit_batches": 2},
    ],
)  # fmt: skip
def test_limits_that_leave_something_pass(settings: dict[str, Any], toy_folder: Path, tmp_path: Path) -> None:
    module, model = make(toy_folder, tmp_path)
    check_run(make_trainer(tmp_path / "run", **settings), module, model)


def test_more_devices_than_documents_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", TOY_EDGES, train=TOY_DOCUMENTS[:1], val=TOY_DOCUMENTS)
    module, model = make(folder, tmp_path)
    with pytest.raises(
        ValueError, match=r"^1 document\(s\) for 2 devices: expected at least one a device; lower trainer"
    ):
        check_run(make_trainer(tmp_path / "run", devices=2, strategy="ddp_notebook"), module, model)


@pytest.mark.parametrize("threshold", ["0.5", "abc"])
def test_a_threshold_in_quotes_is_refused(threshold: str) -> None:
    with pytest.raises(ValueError, match=rf"^threshold='{threshold}': expected a number, or a list of numbers, not a"):
        per_level("threshold", threshold, 3)  # type: ignore[arg-type]


# ---- the direction of a metric ----


def test_every_curve_that_a_run_logs_has_the_direction_of_its_kind(toy_folder: Path, tmp_path: Path) -> None:
    module, model = make(toy_folder, tmp_path)
    trainer = make_trainer(tmp_path / "run", max_epochs=1, log_every_n_steps=1)
    trainer.fit(model, module)
    logged = set(trainer.callback_metrics)
    trainer.test(model, module, verbose=False)
    directions = {name: direction_of(name) for name in logged | set(trainer.callback_metrics)}
    losses = {name for name in directions if name.endswith("loss") or name.startswith("train/")} - {
        "train/learning_rate"
    }
    assert {name for name, direction in directions.items() if direction == "min"} == losses
    assert {"train/loss", "train/label", "val/label_loss"} <= losses
    assert directions["train/learning_rate"] is None
    scores = {name for name, direction in directions.items() if direction == "max"}
    assert scores == {name for name in directions if name.startswith(("val/", "test/"))} - losses
    assert {"val/h_f1_macro", "val/f1_macro_level_3", "val/h_auprc", "val/exact_match"} <= scores


@pytest.mark.parametrize(
    "name",
    ["train/learning_rate", "train/memory_gib", "train/gradient_norm", "epoch", "val/num_documents", "val/seconds"],
)  # fmt: skip
def test_what_has_no_direction_is_no_monitor(name: str, toy_ptmt: PTMT) -> None:
    assert direction_of(name) is None
    with pytest.raises(ValueError, match=rf"^monitor='{name}': expected a score or a loss, which are better when"):
        mode_of(name)
    with pytest.raises(ValueError, match=rf"^monitor='{name}': "):
        check_monitor(name, toy_ptmt)


# ---- the end of a run ----


def test_a_run_of_zeros_says_what_to_change(toy_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(toy_folder, tmp_path, tmp_path / "run", threshold=1.0, trainer={"max_epochs": 1})
    [warning] = [record.getMessage() for record in caplog.records if "all scores are 0" in record.getMessage()]
    assert "train longer (trainer.max_epochs=4), raise optimizer.learning_rate, or lower model.threshold" in warning


def test_a_run_with_scores_says_nothing_of_zeros(
    toy_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(toy_folder, tmp_path, tmp_path / "run", optimizer=FAST, trainer={"max_epochs": 10})
    assert "all scores are 0" not in caplog.text


def test_an_epoch_is_a_line_of_the_log(toy_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ptmt_lightning")
    run(toy_folder, tmp_path, tmp_path / "run", trainer={"max_epochs": 3, "callbacks": [EpochLog()]})
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("epoch ")]
    assert [line.split(",")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    for line in lines:
        assert "val/h_f1_macro 0." in line
        assert ", loss " in line
        assert ", learning rate " in line
    assert [line.endswith("left") for line in lines] == [True, True, False]


def test_the_best_checkpoint_has_no_state_of_the_optimiser(toy_folder: Path, tmp_path: Path) -> None:
    run(toy_folder, tmp_path, tmp_path / "run")
    best, last = (tmp_path / "run/checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    assert "optimizer_states" not in torch.load(best, weights_only=True)
    assert "optimizer_states" in torch.load(last, weights_only=True)
    assert best.stat().st_size < 0.6 * last.stat().st_size


def test_a_finished_run_keeps_its_weights_once_by_default(toy_folder: Path, tmp_path: Path) -> None:
    module, model = make(toy_folder, tmp_path)
    train(datamodule=module, model=model, run_dir=tmp_path / "run", trainer=make_trainer(tmp_path / "run"))
    kept = {path.name for path in (tmp_path / "run").rglob("*") if path.suffix in (".ckpt", ".safetensors")}
    assert kept == {"model.safetensors"}


def test_two_damaged_checkpoints_are_one_line(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    for path in (folder.last_checkpoint, folder.previous_checkpoint):
        path.write_bytes(b"noise")
    with pytest.raises(ValueError, match=r"^resume='.*': no checkpoint there that can be read; start the run anew$"):
        newest(folder)


# ---- names for W&B ----


def test_names_are_cut_to_what_wandb_takes_and_empty_ones_left_out(fresh_wandb: Path) -> None:
    assert _tags(["", "  ", "a/b", "b", None, 2024, "x" * 100]) == ["b", "2024", "x" * 64]
    assert _shortened("") is None
    assert _shortened(2024) == "2024"
    assert len(_shortened("x" * 500) or "") == 128
    logger = wandb_logger(
        save_dir=str(fresh_wandb), project="p", name="n" * 300, group="g" * 300, job_type="j" * 300, tags=[""],
        offline=True,
    )  # fmt: skip
    run = logger.experiment
    assert (len(run.name), len(run.group), len(run.job_type), run.tags or ()) == (128, 128, 128, ())
    run.finish()


@pytest.mark.parametrize("project", ["", "a/b", "x" * 200])
def test_a_project_that_wandb_does_not_take_is_refused(project: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^logger.wandb.project='.*': expected 1 to 128 characters, none of"):
        wandb_logger(save_dir=str(tmp_path), project=project, offline=True)
