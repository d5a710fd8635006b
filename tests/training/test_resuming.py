"""A run that was interrupted or told to end goes on, and ends as if nothing had happened."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from helpers import run
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.exceptions import SIGTERMException


class StopAfter(L.Callback):
    """Stands in for an interruption after an epoch: the schedule still aims at the full length."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_resumed_run_equals_uninterrupted_run(toy_folder: Path, tmp_path: Path, num_workers: int) -> None:
    data = {"num_workers": num_workers}
    settings = {"trainer": {"max_epochs": 5}, "data": data, "p_label": 0.7}
    whole, _ = run(toy_folder, tmp_path, tmp_path / "whole", **settings)
    stopped = {"max_epochs": 5, "callbacks": [StopAfter(2)]}
    part, _ = run(toy_folder, tmp_path, tmp_path / "part", **settings | {"trainer": stopped})
    assert part["epochs"] == 2
    settings["trainer"] = {"max_epochs": 5}
    resumed, _ = run(toy_folder, tmp_path, tmp_path / "part", resume=True, **settings)
    assert resumed["epochs"] == 5
    assert resumed["test"] == whole["test"]
    assert resumed["val"] == whole["val"]
    assert_equal_ends(tmp_path / "part", tmp_path / "whole")


class TerminateAt(L.Callback):
    """The signal that a scheduler sends before it kills."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


OFTEN = [0, 5, 6, 9, 13, 17]  # 6 steps an epoch
ALL_WAYS = itertools.product([[8], OFTEN], [1.0, 2], [0, 2])
QUICK_WAYS = [([8], 1.0, 2), ([8], 2, 0), (OFTEN, 1.0, 0)]


@pytest.mark.parametrize(
    ("steps", "interval", "num_workers"),
    [way if way in QUICK_WAYS else pytest.param(*way, marks=pytest.mark.slow) for way in ALL_WAYS],
)
def test_terminated_run_goes_on_within_the_epoch(
    num_workers: int, steps: list[int], interval: float, toy_folder: Path, tmp_path: Path
) -> None:
    """Whatever depends on validation, too: the best checkpoint and early stopping."""
    settings: dict[str, Any] = {"data": {"num_workers": num_workers}, "p_label": 0.7}
    length = {"max_epochs": 3, "val_check_interval": interval}

    def stopping(*more: L.Callback) -> dict[str, Any]:
        return length | {"callbacks": [EarlyStopping("val/h_auprc", mode="max", patience=10), *more]}

    whole, _ = run(toy_folder, tmp_path, tmp_path / "whole", trainer=stopping(), **settings)
    for number, step in enumerate(steps):
        with pytest.raises(SIGTERMException):
            run(
                toy_folder, tmp_path, tmp_path / "part", trainer=stopping(TerminateAt(step)), resume=number > 0,
                **settings,
            )  # fmt: skip
    resumed, _ = run(toy_folder, tmp_path, tmp_path / "part", trainer=stopping(), resume=True, **settings)
    assert (resumed["steps"], resumed["epochs"]) == (18, 3)
    assert resumed["test"] == whole["test"]
    assert resumed["val"] == whole["val"]
    assert resumed["best_score"] == whole["best_score"]
    assert_equal_ends(tmp_path / "part", tmp_path / "whole")


def assert_equal_ends(one: Path, two: Path) -> None:
    """Both runs ended in the same weights and optimiser state; the best ones may be of an early epoch."""
    ends = [torch.load(run_dir / "checkpoints/last.ckpt", weights_only=True) for run_dir in (one, two)]
    assert ends[0]["global_step"] == ends[1]["global_step"]
    for name, weight in ends[0]["state_dict"].items():
        assert torch.equal(weight, ends[1]["state_dict"][name]), name
    states = [end["optimizer_states"][0]["state"] for end in ends]
    for index, state in states[0].items():
        assert all(torch.equal(value, states[1][index][name]) for name, value in state.items())
