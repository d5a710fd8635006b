"""Searches: ranges, resumed and shared studies, failing trials."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path
from typing import Any

import lightning as L
import optuna
import pytest
import torch
from conftest import ROOT_DIR, Start
from hydra.core.override_parser.overrides_parser import OverridesParser
from lightning.pytorch.trainer.states import TrainerFn
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from processes import pids, wait_for

from hydra_plugins.optuna_sweeper import OptunaSweeper
from ptmt_lightning.search.pruning import Pruning
from ptmt_lightning.search.ranges import distribution_of
from ptmt_lightning.search.storage import PRUNED, open_storage

SEARCH = ["hydra/sweeper=optuna", "hydra.sweeper.study=s", "hydra.sweeper.folder=s", "x=interval(0.0,6.0)"]


def trials(tmp_path: Path) -> list[FrozenTrial]:
    return optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/s/study.db").trials


def drawn(tmp_path: Path) -> list[dict[str, Any]]:
    return [trial.params for trial in trials(tmp_path)]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("x=interval(0.02,0.1)", FloatDistribution(0.02, 0.1)),
        ("x=tag(log,interval(1e-6,1e-2))", FloatDistribution(1e-6, 1e-2, log=True)),
        ("x=int(interval(2,10))", IntDistribution(2, 10)),
        ("x=tag(log,int(interval(1,64)))", IntDistribution(1, 64, log=True)),
        ("x=range(2,11)", IntDistribution(2, 10)),
        ("x=range(2,11,4)", IntDistribution(2, 10, step=4)),
        ("x=range(0,1,0.5)", CategoricalDistribution(["0.0", "0.5"])),
        ("x=range(10,0,-2)", IntDistribution(2, 10, step=2)),
        ("x=choice(a,b)", CategoricalDistribution(["a", "b"])),
        ("x=shuffle(b,c,a)", CategoricalDistribution(["a", "b", "c"])),
        ("x=0.1,null,'a b'", CategoricalDistribution(["0.1", "null", "'a b'"])),
    ],
)
def test_ranges_in_hydras_grammar(override: str, expected: BaseDistribution) -> None:
    assert distribution_of(OverridesParser.create().parse_override(override)) == expected


@pytest.mark.parametrize("override", ["x=interval(2,1)", "x=tag(log,interval(0,1))"])
def test_ranges_that_are_none_are_refused(override: str) -> None:
    with pytest.raises(ValueError, match=r"^x=.*expected LOW below HIGH, and LOW above 0 with tag\(log,...\)$"):
        distribution_of(OverridesParser.create().parse_override(override))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_trials": 0}, r"hydra\.sweeper\.n_trials=0: expected an integer"),
        ({"sampler": "grid"}, r"hydra\.sweeper\.sampler='grid': expected one of gp, tpe, random"),
        ({"pruner": "median"}, r"hydra\.sweeper\.pruner='median': expected successive_halving or null"),
        ({"pruner": "successive_halving"}, r"learns nothing from pruned trials; set hydra\.sweeper\.sampler=tpe"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    settings = {
        "study": "s", "folder": str(tmp_path), "storage": None, "n_trials": 3, "n_jobs": 1, "sampler": "gp", "seed": 0,
        "pruner": None, "min_epochs": 1, "reduction_factor": 3, "params": None,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        OptunaSweeper(**settings | changes)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["gp", "random"])
def test_a_study_goes_on_where_it_ended_and_draws_what_a_whole_one_would(
    tmp_path: Path, start: Start, sampler: str
) -> None:
    arguments = [*SEARCH, f"hydra.sweeper.sampler={sampler}", "dataset.name=a,b"]
    for folder, counts in (("parts", (3, 5)), ("whole", (5,))):
        for n_trials in counts:
            process = start(*arguments, f"hydra.sweeper.folder={folder}", f"hydra.sweeper.n_trials={n_trials}")
            output, _ = process.communicate(timeout=120)
            assert process.returncode == 0, output
    both = [
        optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/{folder}/study.db").trials
        for folder in ("parts", "whole")
    ]
    assert [trial.params for trial in both[0]] == [trial.params for trial in both[1]]
    assert [trial.state for trial in both[0]] == [TrialState.COMPLETE] * 5
    assert [trial.value for trial in both[0]] == pytest.approx([-((t.params["x"] - 3) ** 2) for t in both[0]])
    results = OmegaConf.load(tmp_path / "parts/optimization_results.yaml")
    best = max(both[0], key=lambda trial: trial.value or 0)
    assert results.best_trial == best.number
    assert results.best_value == best.value
    assert results.at_edge == {}
    options = f"--config-path={ROOT_DIR}/tests/plugins/app/conf --config-dir={ROOT_DIR}/conf"
    found = f"x={best.params['x']} dataset.name={best.params['dataset.name']}"
    assert results.command == f"python run.py {options} {found}"
    assert results.command in output
    pictures = {"optimization_history.png", "parallel_coordinate.png", "param_importances.png"}
    assert {path.name for path in (tmp_path / "parts/figures").iterdir()} == pictures
    assert len((tmp_path / "parts/trials.csv").read_text().splitlines()) == 6
    assert OmegaConf.load(tmp_path / "parts/4/config.yaml").run.group == "s"


@pytest.mark.slow
def test_a_killed_study_goes_on_with_no_trial_lost_or_repeated(tmp_path: Path, start: Start) -> None:
    arguments = [*SEARCH, "hydra.sweeper.n_trials=6", "hydra.sweeper.sampler=random", "hydra.launcher.n_jobs=2"]
    process = start(*arguments, "seconds=2")
    wait_for(lambda: all(pids(tmp_path / f"s/{number}") for number in (2, 3)))  # the first two have ended
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    states = [trial.state for trial in trials(tmp_path)]
    assert states == [TrialState.COMPLETE] * 2 + [TrialState.RUNNING] * 2
    before = drawn(tmp_path)
    process = start(*arguments, "seconds=2")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "trial 2, left by another: x=" in output
    assert [trial.state for trial in trials(tmp_path)] == [TrialState.COMPLETE] * 6
    assert drawn(tmp_path)[:4] == before
    assert [len(pids(tmp_path / f"s/{number}")) for number in range(6)] == [1, 1, 2, 2, 1, 1]
    assert [OmegaConf.load(tmp_path / f"s/{number}/config.yaml").x for number in range(6)] == [
        trial["x"] for trial in drawn(tmp_path)
    ]


@pytest.mark.slow
def test_three_processes_share_a_study(tmp_path: Path, start: Start) -> None:
    arguments = [*SEARCH, "hydra.sweeper.n_trials=8", "hydra.sweeper.sampler=tpe", "seconds=0.5"]
    processes = [start(*arguments) for _ in range(3)]
    for process in processes:
        output, _ = process.communicate(timeout=180)
        assert process.returncode == 0, output
    assert [trial.state for trial in trials(tmp_path)] == [TrialState.COMPLETE] * 8
    assert len({trial["x"] for trial in drawn(tmp_path)}) == 8
    assert [len(pids(tmp_path / f"s/{number}")) for number in range(8)] == [1] * 8
    assert len({trial.user_attrs["owner"] for trial in trials(tmp_path)}) > 1
    assert not list((tmp_path / "s").glob(".[0-9a-f]*.lock"))


def test_failed_trials_are_named_and_the_search_goes_on(tmp_path: Path, start: Start) -> None:
    process = start(*SEARCH, "do=score,fail", "hydra.sweeper.n_trials=6", "hydra.sweeper.sampler=random", "seed=1")
    output, _ = process.communicate(timeout=120)
    failed = [trial.number for trial in trials(tmp_path) if trial.params["do"] == "fail"]
    assert 0 < len(failed) < 6
    assert [trial.number for trial in trials(tmp_path) if trial.state == TrialState.FAIL] == failed
    assert process.returncode == 1
    for number in failed:
        assert f"trial {number}, see {tmp_path}/s/{number}" in output
    assert OmegaConf.load(tmp_path / "s/optimization_results.yaml").trials == {
        "complete": 6 - len(failed),
        "fail": len(failed),
    }


@pytest.mark.slow
def test_a_study_with_other_settings_is_refused(tmp_path: Path, start: Start) -> None:
    process = start(*SEARCH, "hydra.sweeper.n_trials=1")
    process.communicate(timeout=120)
    assert process.returncode == 0
    for change in (["x=interval(0.0,7.0)"], ["seconds=0.1"]):
        process = start(*SEARCH, *change, "hydra.sweeper.n_trials=2")
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "error: hydra.sweeper.study=s: that study has other settings" in output
        assert "repeat its command, or choose another name" in output
        assert "Traceback" not in output
    process = start(*SEARCH, "keep_checkpoints=false", "hydra.sweeper.n_trials=1")  # what is kept is no matter
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    process = start(*[argument for argument in SEARCH if "interval" not in argument])
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "error: hydra/sweeper=optuna: no setting with a range; add one, as in 'loss.margin=interval" in output
    assert len(trials(tmp_path)) == 1


def test_a_score_that_is_no_number_is_a_failure(tmp_path: Path, start: Start) -> None:
    process = start(*SEARCH, "do=not_a_number", "hydra.sweeper.n_trials=1")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"error: trials failed:\ntrial 0, see {tmp_path}/s/0" in output
    assert [trial.state for trial in trials(tmp_path)] == [TrialState.FAIL]


@pytest.mark.slow
def test_fail_fast_ends_the_search_and_leaves_the_other_trials_for_the_next_start(tmp_path: Path, start: Start) -> None:
    arguments = [*SEARCH, "hydra.sweeper.n_trials=2", "hydra.sweeper.sampler=random", "seconds=3"]
    fast = ["hydra.launcher.n_jobs=2", "hydra.launcher.fail_fast=true"]
    process = start(*arguments, *fast)
    wait_for(lambda: all((tmp_path / f"s/{number}/config.yaml").exists() for number in (0, 1)))
    os.kill(pids(tmp_path / "s/0")[0], signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode == 1
    assert [trial.state for trial in trials(tmp_path)] == [TrialState.FAIL, TrialState.RUNNING]
    process = start(*arguments)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert [trial.state for trial in trials(tmp_path)] == [TrialState.FAIL, TrialState.COMPLETE]


@pytest.mark.slow
def test_machines_with_disks_of_their_own_share_a_database(tmp_path: Path, start: Start) -> None:
    storage = f"hydra.sweeper.storage=sqlite:///{tmp_path}/shared.db"
    arguments = [*SEARCH, storage, "hydra.sweeper.n_trials=6", "hydra.sweeper.sampler=random"]
    processes = [start(*arguments, f"hydra.sweeper.folder={disk}") for disk in ("one", "two")]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    found = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/shared.db").trials
    done = [trial for trial in found if trial.state == TrialState.COMPLETE]
    assert [trial.number for trial in done] == list(range(6))
    assert len({trial.params["x"] for trial in done}) == 6
    for trial in done:
        [folder] = tmp_path.glob(f"*/{trial.number}")
        assert len(pids(folder)) == 1


@pytest.mark.slow
def test_a_trial_of_a_machine_that_is_gone_is_taken_over(tmp_path: Path, start: Start) -> None:
    arguments = [*SEARCH, "hydra.sweeper.n_trials=1", "hydra.sweeper.sampler=random"]
    process = start(*arguments, "seconds=2")
    wait_for(lambda: bool(pids(tmp_path / "s/0")))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    for path in (tmp_path / "s").glob(".*.lock"):
        path.unlink()  # as on another disk
    process = start(*arguments, "seconds=2")
    process.communicate(timeout=120)
    assert [trial.state for trial in trials(tmp_path)] == [TrialState.RUNNING]  # its heart may still beat
    with sqlite3.connect(tmp_path / "s/study.db") as database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00'")
    process = start(*arguments, "seconds=2")
    process.communicate(timeout=120)
    assert [trial.state for trial in trials(tmp_path)] == [TrialState.COMPLETE]


def test_a_search_that_cannot_be_composed_begins_no_study(tmp_path: Path, start: Start) -> None:
    process = start(*SEARCH, "nothing.such=interval(0,1)")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "nothing" in output
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("url", ["foo", "postgresql://me:secret@host/db", "sqlite:////nowhere/at/all.db"])
def test_a_storage_that_cannot_be_opened_is_named_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"hydra\.sweeper\.storage=.*; expected a URL of SQLAlchemy") as caught:
        open_storage(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("direction", "scores", "best"), [("maximize", [0.5, 0.4], 0.5), ("minimize", [0.5, 0.4], 0.4)]
)
def test_pruning_reports_the_best_score_so_far_and_a_pruned_run_trains_no_further(
    tmp_path: Path, direction: Any, scores: list[float], best: float
) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=url, study_name="s", direction=direction)
    study.ask()
    settings: dict[str, Any] = {"storage": url, "study": "s", "trial": 0, "monitor": "m", "min_epochs": 1}
    pruning = Pruning(**settings, reduction_factor=2)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.state.fn = TrainerFn.FITTING
    module = L.LightningModule()
    for epoch, score in enumerate([scores[0], float("nan"), scores[1]]):
        trainer.fit_loop.epoch_progress.current.processed = epoch
        trainer.fit_loop.epoch_progress.current.completed = epoch
        trainer._logger_connector._callback_metrics["m"] = torch.tensor(score)  # type: ignore[attr-defined]
        pruning.on_validation_end(trainer, module)
    reported = optuna.load_study(storage=url, study_name="s").trials[0].intermediate_values
    assert list(reported.values())[-1] == pytest.approx(best)
    assert not trainer.should_stop
    pruning._trial().set_user_attr(PRUNED, 1)
    pruning.on_train_start(trainer, module)
    assert trainer.should_stop
