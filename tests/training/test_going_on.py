"""A run goes on to a new length, or in a folder that was moved, as one that was so long, or there, from the start."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
from helpers import run
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.exceptions import SIGTERMException
from test_resuming import TerminateAt, assert_equal_ends

from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.training.loggers import RunCSVLogger

LIMITLESS = LinearAdamW(learning_rate=1e-3, new_rate_factor=1, warmup_ratio=0.0, schedule="constant")


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"max_epochs": 2}, {"max_epochs": 4}),
        ({"max_epochs": 4, "max_steps": 12}, {"max_epochs": 4, "max_steps": 24}),
        ({"max_epochs": 4, "max_steps": 8}, {"max_epochs": 4}),  # within an epoch
        ({"max_epochs": 4, "max_steps": 8}, {"max_epochs": 4, "max_steps": 24}),
        ({"max_epochs": 4, "max_steps": 9, "val_check_interval": 3}, {"max_epochs": 4, "val_check_interval": 3}),
    ],
)
def test_a_finished_run_goes_on_as_one_of_the_new_length(
    first: dict[str, int], then: dict[str, int], toy_folder: Path, tmp_path: Path
) -> None:
    """With a rate that does not depend on the length, to the last bit."""
    settings: dict[str, Any] = {"optimizer": LIMITLESS, "p_label": 0.7}
    whole, _ = run(toy_folder, tmp_path, tmp_path / "whole", trainer=then, **settings)
    run(toy_folder, tmp_path, tmp_path / "part", trainer=first, **settings)
    longer, _ = run(toy_folder, tmp_path, tmp_path / "part", trainer=then, resume=True, **settings)
    assert (longer["epochs"], longer["steps"]) == (whole["epochs"], whole["steps"]) == (4, 24)
    for name in ("test", "val", "best_score"):
        assert longer[name] == whole[name]
    assert_equal_ends(tmp_path / "part", tmp_path / "whole")


def rates(run_dir: Path) -> dict[int, float]:
    table = pd.read_csv(run_dir / "metrics.csv").dropna(subset="train/learning_rate")
    return dict(zip(table["step"], table["train/learning_rate"], strict=True))


@pytest.mark.parametrize("cut", [None, 8])
def test_the_rate_is_that_of_the_new_length_from_the_first_step_on(
    cut: int | None, toy_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def trainer(name: str, epochs: int, *callbacks: L.Callback) -> dict[str, Any]:
        logger = RunCSVLogger(str(tmp_path / name))
        return {"max_epochs": epochs, "logger": logger, "log_every_n_steps": 1, "callbacks": list(callbacks)}

    run(toy_folder, tmp_path, tmp_path / "whole", trainer=trainer("whole", 4))
    if cut is None:
        run(toy_folder, tmp_path, tmp_path / "part", trainer=trainer("part", 2))
    else:
        with pytest.raises(SIGTERMException):
            run(toy_folder, tmp_path, tmp_path / "part", trainer=trainer("part", 2, TerminateAt(cut)))
    done = 12 if cut is None else cut + 1  # the step in hand is finished
    with caplog.at_level(logging.INFO, logger="ptmt_lightning"):
        run(toy_folder, tmp_path, tmp_path / "part", trainer=trainer("part", 4), resume=True)
    expected = rates(tmp_path / "whole")
    assert {step: rate for step, rate in rates(tmp_path / "part").items() if step >= done} == {
        step: rate for step, rate in expected.items() if step >= done
    }
    assert (
        "goes on with trainer.max_epochs=4 (was 2): the optimiser's state is kept, the "
        f"learning rate follows the schedule of the new length, from {expected[done]:.2g} at step {done} on"
    ) in caplog.text


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (
            {"max_epochs": 1},
            r"^trainer.max_epochs=1: the run has done 2 epochs; set it to more, or to -1 for no limit$",
        ),
        ({"max_epochs": 3, "max_steps": 12}, r"^trainer.max_steps=12: the run has done 12 steps; set it to more"),
        ({"max_epochs": 2, "max_steps": 50}, r"^trainer.max_epochs=2: the run has done 2 epochs"),
    ],
)
def test_a_length_that_is_reached_already_changes_nothing(
    length: dict[str, int], message: str, toy_folder: Path, tmp_path: Path
) -> None:
    run(toy_folder, tmp_path, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=message):
        run(toy_folder, tmp_path, tmp_path / "run", trainer=length, resume=True)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_cut_off_on_its_longer_way_a_run_has_no_result_and_can_be_resumed(toy_folder: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"optimizer": LIMITLESS}
    run(toy_folder, tmp_path, tmp_path / "part", **settings)
    stopping = {"max_epochs": 4, "callbacks": [TerminateAt(14)]}
    with pytest.raises(SIGTERMException):
        run(toy_folder, tmp_path, tmp_path / "part", trainer=stopping, resume=True, **settings)
    assert not (tmp_path / "part/result.json").exists()
    longer, _ = run(toy_folder, tmp_path, tmp_path / "part", trainer={"max_epochs": 4}, resume=True, **settings)
    whole, _ = run(toy_folder, tmp_path, tmp_path / "whole", trainer={"max_epochs": 4}, **settings)
    assert longer["test"] == whole["test"]
    assert json.loads((tmp_path / "part/result.json").read_text())["epochs"] == 4


def test_early_stopping_ends_a_run_once_and_counts_anew_when_it_is_to_be_longer(
    toy_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def trainer(epochs: int) -> dict[str, Any]:  # no score gets better than 2
        stopping = EarlyStopping("val/h_auprc", mode="max", patience=2, min_delta=2.0)
        return {"max_epochs": epochs, "callbacks": [stopping]}

    first, _ = run(toy_folder, tmp_path, tmp_path / "run", trainer=trainer(9))
    again, _ = run(toy_folder, tmp_path, tmp_path / "run", trainer=trainer(9), resume=True)
    assert (again["epochs"], again["test"]) == (first["epochs"], first["test"])
    assert first["epochs"] == 3
    with caplog.at_level(logging.INFO, logger="ptmt_lightning"):
        longer, _ = run(toy_folder, tmp_path, tmp_path / "run", trainer=trainer(10), resume=True)
    assert longer["epochs"] == 5
    assert "early stopping had ended the run; it counts its 2 epochs anew" in caplog.text


class KillAt(L.Callback):
    """No time for anything: the process is gone in the middle of an epoch."""

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == 14:
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_run_goes_on_where_its_folder_was_moved_to(toy_folder: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"trainer": {"max_epochs": 4}, "optimizer": LIMITLESS}
    killed = {"max_epochs": 4, "callbacks": [KillAt()]}
    if (child := os.fork()) == 0:
        try:
            run(toy_folder, tmp_path, tmp_path / "old", optimizer=LIMITLESS, trainer=killed)
        finally:
            os._exit(1)  # never back into the tests
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    shutil.copytree(tmp_path / "old", tmp_path / "stays")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "old").rename(tmp_path / "elsewhere/run")
    moved, _ = run(toy_folder, tmp_path, tmp_path / "elsewhere/run", resume=True, **settings)
    assert not (tmp_path / "old").exists()
    (tmp_path / "stays").rename(tmp_path / "old")
    unmoved, _ = run(toy_folder, tmp_path, tmp_path / "old", resume=True, **settings)
    for name in ("test", "val", "best_score", "best_checkpoint", "epochs", "steps"):
        assert moved[name] == unmoved[name]
    assert_equal_ends(tmp_path / "elsewhere/run", tmp_path / "old")
    states = [
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["callbacks"]
        for folder in (tmp_path / "elsewhere/run", tmp_path / "old")
    ]
    assert str(tmp_path / "old") not in repr(states[0])
    [one, two] = [next(value for key, value in state.items() if "ModelCheckpoint" in key) for state in states]
    assert one["best_model_score"] == two["best_model_score"]
    assert one["best_model_path"] == str(tmp_path / "elsewhere/run/checkpoints/best.ckpt")
