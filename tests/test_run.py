"""The command line, in subprocesses as users start it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT_DIR
from omegaconf import OmegaConf

pytestmark = pytest.mark.slow


def start(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``run.py`` with ``tmp_path`` as working folder, no W&B account and no hub."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    offline = {"HF_HUB_OFFLINE": "1", "HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(ROOT_DIR / "run.py"), *arguments],
        cwd=tmp_path, env=inherited | offline | environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def toy_arguments(toy_folder: Path) -> list[str]:
    """A run of seconds on the toy data."""
    return [
        "dataset=jsonl", f"dataset.path={toy_folder}", "dataset.name=toy", "dataset.batch_size=4", "backbone=tiny",
        "backbone.hidden_size=32", "trainer=cpu", "trainer.max_epochs=2", "trainer.enable_progress_bar=false",
        "callbacks.progress_bar=null", "trainer.log_every_n_steps=2",
    ]  # fmt: skip


def only_run(tmp_path: Path) -> Path:
    """The folder of the only run."""
    [run_dir] = (tmp_path / "outputs/toy/ptmt").iterdir()
    return run_dir


def test_whole_run_with_csv_and_wandb_offline(toy_folder: Path, tmp_path: Path) -> None:
    done = start(tmp_path, *toy_arguments(toy_folder), "logger=many")
    assert done.returncode == 0, done.stderr
    run_dir = only_run(tmp_path)
    assert {path.name for path in run_dir.iterdir()} == {
        "checkpoints", "config.yaml", "figures", "label_embeddings.csv", "metrics.csv", "model", "per_label.csv",
        "predictions.jsonl", "reliability.csv", "result.json",
        "wandb",
    }  # fmt: skip
    assert f"run: {run_dir}" in done.stdout
    assert done.stdout.count("W&B runs offline: no API key") == 1
    result = json.loads((run_dir / "result.json").read_text())
    assert result["dataset"] == "toy"
    assert result["model"] == "ptmt"
    assert result["wandb_run_id"] in str(list((run_dir / "wandb").iterdir()))
    rows = list(csv.DictReader((run_dir / "metrics.csv").open()))
    pictures = {"label_f1.png", "label_map.png", "learning_curves.png", "reliability.png"}
    assert {path.name for path in (run_dir / "figures").iterdir()} == pictures
    assert {path.name.split("_")[0] for path in run_dir.glob("wandb/*/files/media/images/figures/*")} == {
        name.split("_")[0].removesuffix(".png") for name in pictures
    }
    last = [row for row in rows if row["val/h_f1_macro"]][-1]
    assert {"train/label", "train/count_l1", "train/learning_rate", "train/tokens_per_second"} <= set(last)
    assert OmegaConf.load(run_dir / "config.yaml").dataset.path == str(toy_folder)


def test_resume_from_the_command_line_continues_the_same_folder(toy_folder: Path, tmp_path: Path) -> None:
    stop = "trainer.limit_val_batches=1"
    whole = start(tmp_path, *toy_arguments(toy_folder), stop)
    assert whole.returncode == 0, whole.stderr
    run_dir = only_run(tmp_path)
    before = json.loads((run_dir / "result.json").read_text())
    (run_dir / "result.json").unlink()
    again = start(tmp_path, f"resume={run_dir}")
    assert again.returncode == 0, again.stderr
    after = json.loads((run_dir / "result.json").read_text())
    assert after["test"] == before["test"]
    assert only_run(tmp_path) == run_dir


def test_two_ranks_from_the_command_line(toy_folder: Path, tmp_path: Path) -> None:
    """One run folder, each document predicted once, and the same metrics as counted from the predictions."""
    done = start(tmp_path, *toy_arguments(toy_folder), "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    assert done.returncode == 0, done.stderr
    run_dir = only_run(tmp_path)
    result = json.loads((run_dir / "result.json").read_text())
    assert result["num_devices"] == 2
    lines = [json.loads(line) for line in (run_dir / "predictions.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"test:{number}" for number in range(1, 8)]
    exact = [sorted(line["labels"]) == sorted(path["path"] for path in line["predicted"]) for line in lines]
    assert result["test"]["exact_match"] == pytest.approx(sum(exact) / 7)


def test_multirun_gives_one_folder_a_job(toy_folder: Path, tmp_path: Path) -> None:
    done = start(tmp_path, "-m", *toy_arguments(toy_folder), "trainer.max_epochs=1", "seed=0,1")
    assert done.returncode == 0, done.stderr
    results = [json.loads(path.read_text()) for path in (tmp_path / "outputs/toy/ptmt").glob("*/result.json")]
    assert sorted(result["seed"] for result in results) == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["dataset=bgc", "dataset.mirror=file:///nowhere", "backbone=tiny", "trainer.devices=4"],
            "error: file:///nowhere/blurbgenrecollectionen.zip: [Errno 2] No such file or directory: '/nowhere",
        ),
        (["backbone=tiny", "loss.margin=1.5"], "error: loss.margin=1.5: expected a number in [0, 1); set loss.margin"),
        (["dataset=jsonl"], "error: dataset.path is not set; add dataset.path=VALUE to the command line"),
        (["resume=nowhere"], "error: resume='"),
        (["datset=bgc"], "error: datset=bgc: no key 'datset' in the configuration; did you mean 'dataset'?"),
    ],
)
def test_user_errors_are_one_line_and_leave_nothing(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = start(tmp_path, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "outputs").exists()


def test_multirun_on_several_devices_is_refused(tmp_path: Path) -> None:
    done = start(tmp_path, "-m", "backbone=tiny", "trainer=ddp", "trainer.accelerator=cpu")
    assert done.returncode == 1
    assert "error: -m (multirun) works with trainer.devices=1" in done.stderr


def test_folder_without_weights_as_backbone(toy_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    arguments = ["dataset=jsonl", f"dataset.path={toy_folder}", f"backbone.name={tmp_path / 'model'}"]
    done = start(tmp_path, *arguments)
    assert done.returncode == 1
    assert "the folder has no weights (*.safetensors or pytorch_model*.bin)" in done.stderr
