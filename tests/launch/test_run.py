"""The command line, in subprocesses as users start it."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import ROOT_DIR
from helpers import only_run, start, start_afresh, toy_arguments
from omegaconf import OmegaConf
from warm import warm_python


@pytest.mark.slow
def test_whole_run_with_csv_and_wandb_offline(toy_folder: Path, tmp_path: Path) -> None:
    done = start_afresh(tmp_path, *toy_arguments(toy_folder), "logger=many")
    assert done.returncode == 0, done.stderr
    run_dir = only_run(tmp_path)
    assert {path.name for path in run_dir.iterdir()} == {
        "checkpoints", "config.yaml", "figures", "label_embeddings.csv", "metrics.csv", "mistakes.csv", "model",
        "per_label.csv", "predictions.jsonl", "reliability.csv", "result.json",
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


@pytest.mark.slow  # each process imports all for itself
def test_multirun_gives_one_folder_a_job(toy_folder: Path, tmp_path: Path) -> None:
    done = start_afresh(tmp_path, "-m", *toy_arguments(toy_folder), "trainer.max_epochs=1", "seed=0,1")
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
    assert done.returncode == (2 if "no key" in message else 1)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_multirun_with_ranks_of_its_own_for_each_job(toy_folder: Path, tmp_path: Path) -> None:
    """Each job of a sweep has the devices that it asks for, and scores each document once."""
    arguments = [*toy_arguments(toy_folder), "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=1,2"]
    done = start(tmp_path, "-m", *arguments, "trainer.max_epochs=1", "seed=3", "dataset.batch_per=step")
    assert done.returncode == 0, done.stderr
    found = {}
    for path in (tmp_path / "outputs/toy/ptmt").glob("*/result.json"):
        result = json.loads(path.read_text())
        found[result["num_devices"]] = result
        assert len((path.parent / "predictions.jsonl").read_text().splitlines()) == 7
    assert sorted(found) == [1, 2]
    assert found[1]["steps"] == found[2]["steps"]  # the global batch stays
    assert found[1]["group"] == found[2]["group"] is not None


@pytest.mark.slow
def test_multirun_in_one_process_on_several_devices_is_refused(tmp_path: Path) -> None:
    arguments = ["-m", "backbone=tiny", "trainer=ddp", "trainer.accelerator=cpu", "hydra/launcher=basic"]
    done = start(tmp_path, *arguments)
    assert done.returncode == 1
    assert "error: -m on several devices: expected a process a job; leave out hydra/launcher" in done.stderr


def test_a_batch_that_cannot_be_split_is_refused_in_one_line(toy_folder: Path, tmp_path: Path) -> None:
    arguments = [*toy_arguments(toy_folder), "trainer=ddp", "trainer.accelerator=cpu", "dataset.batch_per=step"]
    done = start(tmp_path, *arguments, "dataset.batch_size=5")
    assert done.returncode == 1
    message = "dataset.batch_size=5 with batch_per=step: expected a multiple of the number of devices, 2; change one"
    assert f"error: {message} of them" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_told_to_end_in_a_sweep_a_run_is_resumed_by_the_same_command(toy_folder: Path, tmp_path: Path) -> None:
    """A job that takes too long saves, ends, and counts as failed; the same command goes on with it."""
    folder = tmp_path / "a=1, (b)"
    arguments = [
        *toy_arguments(toy_folder), "trainer.max_epochs=2000", "callbacks.early_stopping=null", "seed=0",
        f"hydra.sweep.dir='{folder}'", "hydra.sweep.subdir=job", "trainer.check_val_every_n_epoch=1000",
    ]  # fmt: skip
    done = start(tmp_path, "-m", *arguments, "hydra.launcher.timeout_minutes=0.75")
    assert done.returncode == 1, done.stdout
    assert "longer than hydra.launcher.timeout_minutes=0.75, see" in done.stderr
    log = (folder / "job/job.log").read_text()
    assert "told to end (SIGTERM) at step" in log
    assert (folder / "job/checkpoints/last.ckpt").exists()
    assert not (folder / "job/result.json").exists()
    saved = OmegaConf.load(folder / "job/config.yaml")
    reached = torch.load(folder / "job/checkpoints/last.ckpt", weights_only=True)["epoch"]
    saved.trainer.max_epochs = reached + 2  # enough of it
    OmegaConf.save(saved, folder / "job/config.yaml")
    done = start(tmp_path, "-m", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((folder / "job/result.json").read_text())
    assert result["epochs"] == reached + 2
    assert result["steps"] == 6 * (reached + 2)


def test_a_sweep_started_on_every_rank_is_refused(tmp_path: Path) -> None:
    done = start(tmp_path, "-m", "seed=0,1", WORLD_SIZE="2")
    assert done.returncode == 2
    assert (
        "error: a sweep was started 2 times (torchrun, srun): expected once; start `python run.py` itself"
        in done.stderr
    )


@pytest.mark.slow
def test_slurm_jobs_of_a_sweep_run_locally_too(toy_folder: Path, tmp_path: Path) -> None:
    """The launcher behind hydra/launcher=slurm, on this machine."""
    arguments = [*toy_arguments(toy_folder), "trainer.max_epochs=1", "hydra/launcher=submitit_local"]
    done = start(tmp_path, "-m", *arguments, "seed=0,1")
    assert done.returncode == 0, done.stderr
    results = [json.loads(path.read_text()) for path in (tmp_path / "outputs/toy/ptmt").glob("*/result.json")]
    assert sorted(result["seed"] for result in results) == [0, 1]


def start_ranks(tmp_path: Path, *arguments: str, environments: list[dict[str, str]]) -> list[str]:
    """Start run.py once for each environment, at once; gives what they print."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    processes = [
        subprocess.Popen(
            [warm_python(), str(ROOT_DIR / "run.py"), *arguments],
            cwd=tmp_path, env=inherited | environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for environment in environments
    ]  # fmt: skip
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    return outputs


@pytest.mark.slow
def test_two_nodes_under_slurm_share_a_folder_and_a_requeued_job_goes_on(toy_folder: Path, tmp_path: Path) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = str(server.getsockname()[1])
    shared = {
        "SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "train", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_NNODES": "2",
        "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NODELIST": "localhost",
        "SLURM_LOCALID": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    environments = [shared | {"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank)} for rank in (0, 1)]
    arguments = [*toy_arguments(toy_folder), "trainer=ddp", "trainer.accelerator=cpu"]
    arguments += ["trainer.devices=1", "trainer.num_nodes=2"]
    start_ranks(tmp_path, *arguments, environments=environments)
    run_dir = only_run(tmp_path)
    assert run_dir.name == "slurm-77-0"
    first = json.loads((run_dir / "result.json").read_text())
    assert first["num_devices"] == 2
    assert len((run_dir / "predictions.jsonl").read_text().splitlines()) == 7
    trained = (run_dir / "checkpoints/last.ckpt").stat().st_mtime_ns
    # SLURM starts a job that lost its node again under the same id.
    (run_dir / "result.json").unlink()
    requeued = [environment | {"SLURM_RESTART_COUNT": "1"} for environment in environments]
    start_ranks(tmp_path, *arguments, environments=requeued)
    assert only_run(tmp_path) == run_dir
    again = json.loads((run_dir / "result.json").read_text())
    assert again["test"] == first["test"]
    assert again["steps"] == first["steps"]
    assert (run_dir / "checkpoints/last.ckpt").stat().st_mtime_ns == trained  # nothing was trained anew


@pytest.mark.slow  # each process imports all for itself
def test_ranks_of_torchrun_share_a_folder(toy_folder: Path, tmp_path: Path) -> None:
    arguments = [*toy_arguments(toy_folder), "trainer=ddp", "trainer.accelerator=cpu", "trainer.max_epochs=1"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
            str(ROOT_DIR / "run.py"), *arguments,
        ],
        cwd=tmp_path, env=inherited, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((only_run(tmp_path) / "result.json").read_text())
    assert result["num_devices"] == 2


def test_a_search_leaves_out_ranges_that_the_loss_has_not(toy_folder: Path, tmp_path: Path) -> None:
    choices = ["model=bert", "search=bert", "loss=bce", "hydra.sweeper.n_trials=1", "trainer.max_epochs=1"]
    done = start(tmp_path, *toy_arguments(toy_folder), *choices)
    assert done.returncode == 0, done.stderr
    for name in ("gamma_neg", "margin"):
        assert f"loss.{name} is not searched: ptmt_lightning.losses.WeightedBCE has no such setting" in done.stdout
    [trials] = (tmp_path / "outputs/studies").glob("*/trials.csv")
    searched = [column.removeprefix("params_") for column in pd.read_csv(trials) if column.startswith("params_")]
    assert {column.split(".")[0] for column in searched} == {"optimizer", "model"}


@pytest.mark.slow
def test_a_search_with_pruning_on_two_ranks(toy_folder: Path, tmp_path: Path) -> None:
    """Both ranks train with the trial's settings, and end together where the study says so."""
    arguments = [
        *toy_arguments(toy_folder), "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "search=ptmt",
        "hydra.sweeper.sampler=random", "hydra.sweeper.pruner=successive_halving", "hydra.sweeper.reduction_factor=2",
        "hydra.sweeper.n_trials=4", "trainer.max_epochs=3", "+callbacks.witness._target_=witness.Witness",
        "+callbacks.witness.folder=${run.dir}", "monitor=val/h_auprc",
    ]  # fmt: skip
    done = start(tmp_path, *arguments, PYTHONPATH=str(ROOT_DIR / "tests" / "plugins"))
    assert done.returncode == 0, done.stdout + done.stderr
    study = tmp_path / "outputs/studies/toy-ptmt"
    table = list(csv.DictReader((study / "trials.csv").open()))
    states = [row["state"] for row in table]
    assert set(states) == {"COMPLETE", "PRUNED"}
    for row in table:
        folder = study / row["number"]
        seen = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
        assert seen[0] == seen[1]
        assert seen[0]["learning_rate"] == pytest.approx(float(row["params_optimizer.learning_rate"]))
        assert seen[0]["gamma_neg"] == int(float(row["params_loss.gamma_neg"]))
        result = json.loads((folder / "result.json").read_text())
        assert result["epochs"] == seen[0]["epochs"]
        assert (result["epochs"] < 3) == (row["state"] == "PRUNED")
        assert result["test"] == {}  # a search leaves the test split alone
        assert not (folder / "predictions.jsonl").exists()
        assert result["group"] == "toy-ptmt"


def test_folder_without_weights_as_backbone(toy_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    arguments = ["dataset=jsonl", f"dataset.path={toy_folder}", f"backbone.name={tmp_path / 'model'}"]
    done = start(tmp_path, *arguments)
    assert done.returncode == 1
    assert "the folder has no weights (*.safetensors or pytorch_model*.bin)" in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_names_with_brackets_and_accents_are_shown_as_they_are(encoding: str, toy_folder: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "données [red]x[/red] [/]"
    toy = [word for word in toy_arguments(toy_folder) if "progress_bar" not in word]
    more = ["dataset.name='données [/x]'", f"hydra.run.dir='{run_dir}'"]
    done = start(tmp_path, *toy, *more, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for text in (f"run: {run_dir}", "données [/x] / ptmt"):
        assert text.encode(encoding, "backslashreplace").decode(encoding) in done.stdout
