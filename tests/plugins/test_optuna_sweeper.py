"""Searches: ranges, resumed and shared studies, failing trials."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import Start
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from processes import pids, wait_for

from hydra_plugins.optuna_sweeper import OptunaSweeper, _distribution

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
        ("x=choice(a,b)", CategoricalDistribution(["a", "b"])),
        ("x=0.1,null,'a b'", CategoricalDistribution(["0.1", "null", "'a b'"])),
    ],
)
def test_ranges_in_hydras_grammar(override: str, expected: BaseDistribution) -> None:
    assert _distribution(OverridesParser.create().parse_override(override)) == expected


def test_an_interval_with_exchanged_ends_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x=interval\(2,1\): expected the lower end first; exchange the two"):
        _distribution(OverridesParser.create().parse_override("x=interval(2,1)"))


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
@pytest.mark.parametrize("sampler", ["gp", "tpe", "random"])
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
    assert results.command == f"python run.py x={best.params['x']} dataset.name={best.params['dataset.name']}"
    assert results.command in output
    pictures = {"optimization_history.png", "parallel_coordinate.png", "param_importances.png"}
    assert {path.name for path in (tmp_path / "parts/figures").iterdir()} == pictures
    assert len((tmp_path / "parts/trials.csv").read_text().splitlines()) == 6
    assert OmegaConf.load(tmp_path / "parts/4/config.yaml").run.group == "s"


@pytest.mark.slow
def test_a_killed_study_goes_on_with_no_trial_lost_or_repeated(tmp_path: Path, start: Start) -> None:
    arguments = [*SEARCH, "hydra.sweeper.n_trials=6", "hydra.sweeper.sampler=random", "hydra.launcher.n_jobs=2"]
    process = start(*arguments, "seconds=2")
    wait_for(lambda: bool(pids(tmp_path / "s/3")))  # the first two have ended
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


@pytest.mark.slow
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
    process.communicate(timeout=60)
    assert process.returncode == 0
    for change in (["x=interval(0.0,7.0)"], ["seconds=0.1"]):
        process = start(*SEARCH, *change, "hydra.sweeper.n_trials=2")
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "error: hydra.sweeper.study=s: that study has other settings" in output
        assert "repeat its command, or choose another name" in output
        assert "Traceback" not in output
    process = start(*[argument for argument in SEARCH if "interval" not in argument])
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "error: hydra/sweeper=optuna: no setting with a range; add one, as in 'loss.margin=interval" in output
    assert len(trials(tmp_path)) == 1
