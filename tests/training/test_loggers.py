"""Loggers: metrics.csv of a resumed run, and Weights & Biases without a key or a network."""

from __future__ import annotations

import csv
import logging
import socket
from pathlib import Path

import pytest
import wandb
from lightning_utilities.core.rank_zero import rank_zero_only

from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.training.loggers import RunCSVLogger, wandb_logger


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write(folder: Path, *metrics: dict[str, float], first_step: int = 0) -> None:
    """One run, or one part of a resumed run."""
    logger = RunCSVLogger(str(folder))
    for step, values in enumerate(metrics, start=first_step):
        logger.log_metrics(values, step)
    logger.finalize("success")


# ---- metrics.csv ----


def test_metrics_lie_in_the_folder_itself(tmp_path: Path) -> None:
    write(tmp_path / "run", {"loss": 2.0}, {"loss": 1.5})
    assert rows(tmp_path / "run") == [{"loss": "2.0", "step": "0"}, {"loss": "1.5", "step": "1"}]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.csv"]


def test_resumed_run_goes_on_below_the_earlier_rows(tmp_path: Path) -> None:
    write(tmp_path, {"loss": 2.0})
    write(tmp_path, {"loss": 1.0}, {"loss": 0.5}, first_step=1)
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [("0", "2.0"), ("1", "1.0"), ("2", "0.5")]


def test_resumed_run_may_have_new_columns_and_lack_old_ones(tmp_path: Path) -> None:
    write(tmp_path, {"loss": 2.0, "rate": 0.1})
    write(tmp_path, {"loss": 1.0, "accuracy": 0.7}, first_step=1)
    assert rows(tmp_path) == [
        {"accuracy": "", "loss": "2.0", "rate": "0.1", "step": "0"},
        {"accuracy": "0.7", "loss": "1.0", "rate": "", "step": "1"},
    ]


def test_columns_that_appear_later_in_one_run_keep_the_rows(tmp_path: Path) -> None:
    logger = RunCSVLogger(str(tmp_path))
    for step, metrics in enumerate([{"a": 1.0}, {"b": 2.0}, {"a": 3.0, "c": 4.0}]):
        logger.log_metrics(metrics, step)
        logger.save()
    assert [(row["a"], row["b"], row["c"]) for row in rows(tmp_path)] == [
        ("1.0", "", ""), ("", "2.0", ""), ("3.0", "", "4.0"),
    ]  # fmt: skip


def test_opening_without_logging_leaves_the_file_alone(tmp_path: Path) -> None:
    write(tmp_path, {"loss": 2.0})
    before = (tmp_path / "metrics.csv").read_bytes()
    write(tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() == before


def test_empty_file_of_a_killed_run_gets_a_header(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").touch()
    write(tmp_path, {"loss": 2.0})
    assert rows(tmp_path) == [{"loss": "2.0", "step": "0"}]


def test_other_files_of_the_run_stay(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text("earlier")
    write(tmp_path, {"loss": 2.0})
    assert (tmp_path / "train.log").read_text() == "earlier"


# ---- Weights & Biases ----


def test_without_a_key_it_works_offline_with_one_warning(
    fresh_wandb: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.WARNING):
        logger = wandb_logger(save_dir=str(fresh_wandb), project="toy", group="g", tags=["t"])
    assert logger._offline
    assert [record.getMessage() for record in caplog.records] == [
        "W&B runs offline: no API key (set WANDB_API_KEY or run `wandb login`); "
        f"send the run later with `wandb sync {fresh_wandb}/wandb/offline-run-*`"
    ]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("mode", ["argument", "environment"])
def test_offline_by_choice_is_no_reason_for_a_warning(
    fresh_wandb: Path, mode: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    if mode == "environment":
        monkeypatch.setenv("WANDB_MODE", "offline")
    with caplog.at_level(logging.WARNING):
        wandb_logger(save_dir=str(fresh_wandb), project="toy", offline=mode == "argument")
    assert not caplog.records


def test_with_a_key_but_no_way_to_the_server_it_works_offline(
    fresh_wandb: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:  # bound but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with caplog.at_level(logging.WARNING, logger="ptmt_lightning"):
            logger = wandb_logger(save_dir=str(fresh_wandb), project="toy")
    assert logger._offline
    (record,) = caplog.records
    assert "W&B runs offline: no connection to 127.0.0.1" in record.getMessage()


def test_offline_run_is_written_below_the_save_dir(fresh_wandb: Path) -> None:
    save_dir = fresh_wandb / "run"
    logger = wandb_logger(save_dir=str(save_dir), project="toy")
    logger.log_metrics({"loss": 1.0}, step=0)
    assert logger.experiment.settings.mode in ("offline", "dryrun")
    wandb.finish()
    (folder,) = (save_dir / "wandb").glob("offline-run-*")
    assert list(folder.glob("*.wandb"))


def test_rewinding_drops_the_rows_that_a_resumed_run_writes_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,train/loss\n0,9,3.5\n0,19,2.5\n1,29,1.5\n1,3")
    RunCSVLogger(str(tmp_path)).rewind(20)
    assert path.read_text() == "epoch,step,train/loss\n0,9,3.5\n0,19,2.5\n"
    path.write_text("")  # killed while it was written
    RunCSVLogger(str(tmp_path)).rewind(20)
    assert not path.exists()
    RunCSVLogger(str(tmp_path)).rewind(20)


def test_a_resumed_run_is_the_same_wandb_run(fresh_wandb: Path) -> None:
    ids, folder = [], RunFolder(fresh_wandb)
    for _ in range(2):
        logger = wandb_logger(save_dir=str(fresh_wandb), project="toy", offline=True)
        logger.keep_id(folder)
        ids.append(logger.experiment.id)
        wandb.finish()
        folder.config.write_text("run: {}\n")
        folder.checkpoints.mkdir(exist_ok=True)
        folder.last_checkpoint.touch()
    assert ids[0] == ids[1] == folder.wandb_run_id.read_text()
    folder.clear()
    assert wandb_logger(save_dir=str(fresh_wandb), project="toy", offline=True).version != ids[0]


def test_names_and_tags_are_no_longer_than_wandb_takes(fresh_wandb: Path) -> None:
    logger = wandb_logger(
        save_dir=str(fresh_wandb), project="toy", name="toy ptmt " + "long " * 40 + "seed=1 ", offline=True,
        choices=["toy", "ptmt", "owner/bert-base", "/folder/of/a/model/"], tags=["t" * 80, "toy"],
    )  # fmt: skip
    run = logger.experiment
    assert len(run.name) == 128
    assert run.name.startswith("toy ptmt long ")
    assert run.name.endswith("long seed=1")
    assert run.tags == ("toy", "ptmt", "bert-base", "model", "t" * 64)
    wandb.finish()


def test_ranks_above_0_neither_look_for_a_server_nor_leave_anything(
    fresh_wandb: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = wandb_logger(save_dir=str(fresh_wandb / "run"), project="toy")
    logger.log_hyperparams({"a": 1})
    logger.log_metrics({"val/loss": 1.0}, step=0)
    assert not caplog.records
    assert not (fresh_wandb / "run").exists()


def test_a_run_of_a_wandb_sweep_takes_the_agents_id(fresh_wandb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "fromagent")
    logger = wandb_logger(save_dir=str(fresh_wandb), project="toy", offline=True)
    assert logger.experiment.id == "fromagent"
    wandb.finish()
