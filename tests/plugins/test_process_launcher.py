"""Jobs of a sweep as processes: what they see, what becomes of those that fail, hang or are cut off."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
import torch
from conftest import Start
from omegaconf import OmegaConf
from processes import is_running, pids, wait_for

from ptmt_lightning.launch.devices import share_of_devices


@pytest.mark.slow
def test_jobs_are_processes_that_know_nothing_of_ranks_and_share_a_group(tmp_path: Path, start: Start) -> None:
    ranks = {"WORLD_SIZE": "4", "LOCAL_RANK": "1", "SLURM_PROCID": "1", "TORCHELASTIC_RUN_ID": "x", "MASTER_PORT": "1"}
    process = start("x=1,2,3", "hydra.launcher.n_jobs=2", "hydra.verbose=true", OMP_NUM_THREADS="2", **ranks)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    environments = [json.loads((tmp_path / f"out/{job}/environment.json").read_text()) for job in range(3)]
    configs = [OmegaConf.load(tmp_path / f"out/{job}/config.yaml") for job in range(3)]
    for environment in environments:
        assert not set(ranks) & set(environment)
        assert environment["OMP_NUM_THREADS"] == "1"
    assert [config.x for config in configs] == [1, 2, 3]
    assert len({config.run.group for config in configs}) == 1
    assert configs[0].run.group
    assert re.search(r"\[1\] x=2: done in \d\.\d minutes, score -1\n", output)
    assert "[HYDRA] Hydra" in (tmp_path / "out/0/job.log").read_text()  # hydra.verbose is the job's, too


@pytest.mark.slow
def test_a_failed_job_does_not_stop_the_others_and_is_named_with_its_folder(tmp_path: Path, start: Start) -> None:
    process = start("do=score,fail", "x=1,2")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "error: 2 of 4 jobs failed:\n" in output
    log = tmp_path / "out/2/job.log"
    assert f"[2] do=fail x=1: exit code 1, see {log}: error: told to fail\n" in output
    assert "Traceback" not in output
    assert (tmp_path / "out/1/result.json").exists()
    # The same command again runs only what has no result yet.
    process = start("do=score,fail", "x=1,2")
    output, _ = process.communicate(timeout=120)
    assert "[0] do=score x=1: has a result already" in output
    assert [len(pids(tmp_path / f"out/{job}")) for job in range(4)] == [1, 1, 2, 2]


def test_a_job_that_dies_after_its_result_has_not_failed(tmp_path: Path, start: Start) -> None:
    process = start("do=die", "x=1,2", "hydra.launcher.fail_fast=true")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "[1] x=2: has its result, but ended with exit code -9 before all tables and pictures" in output


def test_fail_fast_ends_the_others(tmp_path: Path, start: Start) -> None:
    process = start("+n=0,1,2", "do=sleep", "seconds=100", "hydra.launcher.n_jobs=2", "hydra.launcher.fail_fast=true")
    wait_for(lambda: all(pids(tmp_path / f"out/{job}") for job in (0, 1)))
    [first], [second] = pids(tmp_path / "out/0"), pids(tmp_path / "out/1")
    assert is_running(second)
    os.kill(first, signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "error: 1 of 3 jobs failed:" in output
    assert "[0] +n=0: exit code -9" in output
    assert "[1] +n=1: ended with the sweep" in output
    assert "[2] +n=2: not started" in output
    assert not is_running(second)
    assert not (tmp_path / "out/2").exists()


@pytest.mark.slow
def test_a_job_that_takes_too_long_is_told_to_end_then_killed(tmp_path: Path, start: Start) -> None:
    limits = ["hydra.launcher.timeout_minutes=0.03", "hydra.launcher.grace_seconds=1"]
    process = start("do=sleep,ignore_sigterm,score", "seconds=100", *limits, python=sys.executable)  # is stopped below
    wait_for(lambda: bool(pids(tmp_path / "out/1")))
    process.send_signal(signal.SIGSTOP)  # so that the job, which is busy starting, comes to ignore the signal
    wait_for(lambda: (tmp_path / "out/1/config.yaml").exists())
    process.send_signal(signal.SIGCONT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert output.count("longer than hydra.launcher.timeout_minutes=0.03, see") == 6  # at once and in the summary
    assert not any(is_running(pid) for job in range(3) for pid in pids(tmp_path / f"out/{job}"))


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_jobs_end_with_the_sweep(tmp_path: Path, start: Start, how: signal.Signals) -> None:
    process = start("+n=0,1", "do=sleep", "seconds=100", "hydra.launcher.n_jobs=2")
    wait_for(lambda: all((tmp_path / f"out/{job}/config.yaml").exists() for job in (0, 1)))
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode != 0
    wait_for(lambda: not any(is_running(pid) for job in (0, 1) for pid in pids(tmp_path / f"out/{job}")), 10)


def test_a_folder_in_which_another_process_is_at_work_is_waited_for(tmp_path: Path, start: Start) -> None:
    (tmp_path / "out/0").mkdir(parents=True)
    with (tmp_path / "out/0/job.log").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        process = start("x=1,2", "hydra.launcher.n_jobs=2")
        assert process.stdout is not None
        line = next(line for line in process.stdout if "waiting" in line)
        assert "[0] x=1: waiting for another process that has the folder" in line
        assert not pids(tmp_path / "out/0")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert len(pids(tmp_path / "out/0")) == 1


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("hydra.launcher.n_jobs=0", "hydra.launcher.n_jobs=0: expected an integer"),
        ("hydra.launcher.timeout_minutes=-1", "hydra.launcher.timeout_minutes=-1: expected a number > 0"),
        ("hydra.launcher.timeout_minutes=0", "hydra.launcher.timeout_minutes=0: expected a number > 0"),
    ],
)
def test_settings_out_of_range_are_refused(start: Start, argument: str, message: str) -> None:
    process = start("x=1,2", argument)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert message in output


def test_jobs_on_the_cpu_share_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert share_of_devices(1, 2, uses_gpus=False) == {"OMP_NUM_THREADS": "3"}
    assert share_of_devices(0, 8, uses_gpus=False) == {"OMP_NUM_THREADS": "1"}
    assert share_of_devices(0, 1, uses_gpus=False) == {}


def test_gpus_are_split_between_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,5")

    def visible(n_jobs: int) -> list[str]:
        environments = [share_of_devices(slot, n_jobs, uses_gpus=True) for slot in range(n_jobs)]
        return [environment["CUDA_VISIBLE_DEVICES"] for environment in environments]

    assert visible(2) == ["0,1", "2,5"]
    assert visible(3) == ["0", "1", "2"]
    assert share_of_devices(0, 1, uses_gpus=True) == {}
    with pytest.raises(ValueError, match=r"hydra\.launcher\.n_jobs=5: expected at most as many as there are GPUs, 4"):
        visible(5)


def test_a_folder_of_another_job_is_left_alone(tmp_path: Path, start: Start) -> None:
    process = start("x=1,2", "hydra.sweep.subdir='a=1,(b)'")  # both in one folder
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    folder = tmp_path / "out/a=1,(b)"
    assert f'[a=1,(b)] x=2: {folder} is of another job (arguments: ["x=1"]); choose another hydra.sweep' in output
    assert OmegaConf.load(folder / "config.yaml").x == 1
    assert len(pids(folder)) == 1


def test_a_job_without_a_result_has_no_score(start: Start) -> None:
    process = start("x=1,2", "do=none")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert output.count("score None") == 2
