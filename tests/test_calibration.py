"""Calibration of probabilities: what is fitted, what it keeps, and what a run and its model make of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TOY_EDGES
from helpers import start, toy_arguments
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ptmt_lightning.calibration import CALIBRATIONS, Isotonic, Temperature, read_calibration
from ptmt_lightning.cli import main
from ptmt_lightning.decisions import DECISIONS, DecisionRule
from ptmt_lightning.inference import Classifier
from ptmt_lightning.metrics import calibration_error
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.training.fit_rule import fit_rule

TAXONOMY = Taxonomy(TOY_EDGES)
SIZES = TAXONOMY.level_sizes


def rule_of(decision: str = "sigmoid", thresholds: float = 0.5) -> DecisionRule:
    return DecisionRule(
        taxonomy=TAXONOMY, decision=DECISIONS[decision], thresholds=(thresholds,) * len(SIZES), prune=False
    )


def drawn(temperature: float, size: int = 4000) -> tuple[Tensor, Tensor]:
    """Scores that are ``temperature`` times as large as those by which their labels are drawn, each on its own."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(size, len(TAXONOMY), generator=generator) * 2 - 1
    return logits * temperature, torch.rand(logits.shape, generator=generator) < logits.sigmoid()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_the_temperature_by_which_scores_were_scaled_is_found(temperature: float) -> None:
    logits, targets = drawn(temperature)
    found = Temperature.fit(rule_of().decision.probabilities, logits, targets, SIZES)
    assert found.temperatures == pytest.approx([temperature] * len(SIZES), rel=0.1)


def test_the_temperature_of_a_softmax_over_each_level_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    decision = DECISIONS["level_softmax"]
    logits = torch.randn(4000, len(TAXONOMY), generator=generator) * 2
    targets = []
    for level in decision.probabilities(logits, SIZES).split(list(SIZES), dim=-1):
        with_end = torch.cat([level, (1 - level.sum(-1, keepdim=True)).clamp_min(0)], dim=-1)
        drawn_labels = torch.multinomial(with_end, 1, generator=generator)
        targets.append(torch.zeros_like(with_end).scatter_(-1, drawn_labels, 1).bool()[:, :-1])
    found = Temperature.fit(decision.probabilities, logits * 3, torch.cat(targets, dim=-1), SIZES)
    assert found.temperatures == pytest.approx([3.0] * len(SIZES), rel=0.1)
    rule = rule_of("level_softmax")
    calibrated = replace(rule, calibration=found)
    chosen = [some.predict(some.probabilities(logits * 3)) for some in (rule, calibrated)]
    assert chosen[0].equal(chosen[1])


def test_an_isotonic_curve_runs_through_the_centres_of_its_blocks() -> None:
    """Pooled by hand: of shares 0, 1, 0, 1 at four probabilities, the middle two violate the order."""
    logits = torch.tensor([0.1, 0.3, 0.5, 0.9]).logit()[:, None]
    targets = torch.tensor([False, True, False, True])[:, None]
    curve = Isotonic.fit(DECISIONS["sigmoid"].probabilities, logits, targets, [1])
    [(x, y)] = curve.curves
    assert x == pytest.approx((0, 0.1, 0.4, 0.9, 1))
    assert y == pytest.approx([value * 0.999 + at * 0.001 for value, at in zip((0, 0, 0.5, 1, 1), x, strict=True)])
    asked = torch.tensor([[0.2]]).logit()
    found = curve.apply(DECISIONS["sigmoid"].probabilities, asked, [1])
    assert found.item() == pytest.approx(np.interp(0.2, x, y))


@pytest.mark.parametrize("method", CALIBRATIONS)
def test_calibration_lowers_the_error_and_keeps_what_is_predicted(method: str) -> None:
    logits, targets = drawn(2.5)
    rule = rule_of(thresholds=0.3)
    before = rule.probabilities(logits)
    calibrated = fit_rule(rule, logits, targets, tuning=None, calibrate=method)  # type: ignore[arg-type]
    after = calibrated.probabilities(logits)
    clear = (before - 0.3).abs() > 1e-5  # nearer, rounding decides
    assert rule.predict(before)[clear].equal(calibrated.predict(after)[clear])
    assert clear.float().mean() > 0.99
    other, true = drawn(2.5, size=3000)
    errors = [error(some.probabilities(other), true) for some in (rule, calibrated)]
    assert errors[1] < 0.25 * errors[0]


def error(probabilities: Tensor, true: Tensor) -> float:
    """The expected calibration error, counted by hand."""
    bins = np.minimum((probabilities.numpy() * 20).astype(int), 19).ravel()
    total = 0.0
    for index in range(20):
        inside = bins == index
        total += abs(probabilities.numpy().ravel()[inside].sum() - true.numpy().ravel()[inside].sum())
    return total / len(bins)


@given(
    scores=st.lists(st.floats(-6, 6, width=32), min_size=4, max_size=30, unique=True),
    threshold=st.floats(0.05, 0.95),
    method=st.sampled_from(list(CALIBRATIONS)),
    seed=st.integers(0, 99),
)
def test_order_and_side_of_the_threshold_are_kept(
    scores: list[float], threshold: float, method: str, seed: int
) -> None:
    logits = torch.tensor(scores, dtype=torch.float32)[:, None]
    probabilities = DECISIONS["sigmoid"].probabilities
    targets = torch.rand(logits.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    fitted = CALIBRATIONS[method].fit(probabilities, logits, targets, [1])
    before, after = probabilities(logits, [1]).flatten(), fitted.apply(probabilities, logits, [1]).flatten()
    assert ((after >= 0) & (after <= 1)).all()
    assert (after[before.argsort()].diff() >= -1e-7).all()
    limit = fitted.threshold(0, threshold)
    clear = (before - threshold).abs() > 1e-3  # nearer, rounding decides
    assert ((before > threshold) == (after > limit))[clear].all()
    again = read_calibration(json.loads(json.dumps(fitted.to_json())), 1)
    assert again == fitted


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"method": "magic"}, "whose method is temperature or isotonic"),
        ([1], "expected null, or one whose method"),
        ({"method": "temperature", "temperatures": [1.0]}, "expected a list of 3 numbers"),
        ({"method": "temperature", "temperatures": [1.0, 1.0, math.inf]}, "expected finite numbers"),
        ({"method": "temperature", "temperatures": [1.0, 1.0, -2.0]}, "expected numbers above 0"),
        ({"method": "isotonic", "curves": [[[0, 1], [0, 1]]]}, "expected 3, one a level"),
        ({"method": "isotonic", "curves": [[[0, 1], [1, 0]]] * 3}, "expected rising numbers"),
        ({"method": "isotonic", "curves": [[[0, 1], [0]]] * 3}, "expected a list of 2 numbers"),
        ({"method": "isotonic", "curves": [7] * 3}, "expected two lists of numbers"),
    ],
)
def test_a_calibration_that_is_none_is_refused(content: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        read_calibration(content, 3)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (["model.calibrate=platt"], "model.calibrate='platt': expected null, 'temperature' or 'isotonic'"),
        (["model.calibrate=isotonic", "loss=cross_entropy"], "set model.calibrate=temperature"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: list[str], text: str, toy_folder: Path, tmp_path: Path) -> None:
    done = start(tmp_path, *toy_arguments(toy_folder), *settings)
    assert done.returncode == 1
    assert text in done.stderr


@pytest.mark.parametrize(("system", "method"), [("ptmt", "isotonic"), ("tfidf", "temperature")])
def test_a_run_calibrates_and_its_model_gives_the_same_probabilities(
    system: str, method: str, toy_folder: Path, tmp_path: Path
) -> None:
    arguments = [*toy_arguments(toy_folder), f"model={system}", f"model.calibrate={method}", "model.threshold=0.4"]
    done = start(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / f"outputs/toy/{system}").iterdir()
    result = json.loads((folder / "result.json").read_text())
    assert result["calibration"]["method"] == method
    bins = pd.read_csv(folder / "reliability.csv")
    for name, rows in bins.groupby("calibration"):
        expected = result["calibration"][f"test_error_{name}"]
        assert calibration_error(rows.to_dict("records")) == pytest.approx(expected, abs=1e-6)
    assert set(bins["calibration"]) == {"before", "after"}
    if system == "tfidf":
        return
    main(["evaluate", str(folder / "model"), str(toy_folder), "-o", str(tmp_path / "again")])
    again = json.loads((tmp_path / "again/evaluation.json").read_text())
    assert again["metrics"] == pytest.approx(result["test"], abs=1e-6)
    assert again["thresholds"] == result["thresholds"]
    rule = Classifier.from_pretrained(folder / "model", device="cpu").rule
    assert isinstance(rule.calibration, Isotonic)
    assert (folder / "predictions.jsonl").read_bytes() == (tmp_path / "again/predictions.jsonl").read_bytes()
