"""What the report of a search says of its trials."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution

from ptmt_lightning.search.report import write_report


@pytest.mark.parametrize(
    ("direction", "values", "is_told"),
    [("maximize", [0.0, 0.0], True), ("maximize", [0.0, 0.1], False), ("minimize", [0.0, 0.3], False)],
)
def test_a_search_that_predicts_nothing_right_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, direction: str, values: list[float], is_told: bool
) -> None:
    study = optuna.create_study(direction=direction)
    for value in values:
        trial = optuna.trial.create_trial(
            value=value, params={"loss.margin": value}, distributions={"loss.margin": FloatDistribution(0, 1)}
        )
        study.add_trial(trial)
    settings = SimpleNamespace(folder=tmp_path, study="toy", sampler="random")
    shared: Any = SimpleNamespace(study=study, settings=settings, lock=nullcontext(), states=lambda: "2 complete")
    with caplog.at_level(logging.WARNING, logger="ptmt_lightning"):
        assert write_report(shared, ["python", "run.py"]) is not None
    assert ("all trials scored 0" in caplog.text) == is_told
