"""What validation documents decide of a decision rule: its thresholds, and how its probabilities are calibrated.

Shape legend: ``N`` documents, ``V`` nodes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from ptmt_lightning.calibration import CALIBRATIONS, Method
from ptmt_lightning.decisions import DecisionRule
from ptmt_lightning.metrics import Classes, calibration_error, reliability, score_counts
from ptmt_lightning.thresholds import Tuning, tune_thresholds


def fit_rule(
    rule: DecisionRule,
    logits: Tensor,
    targets: Tensor,
    *,
    tuning: Tuning | None,
    calibrate: Method | None,
    classes: Classes = "present",
) -> DecisionRule:
    """Return a rule with thresholds, calibration or both chosen on validation documents.

    Thresholds are tuned first and carried over to calibrated probabilities, so that calibration alone changes no label
    that is predicted by a threshold (but where scores are coherent, which compares levels with each other).

    Args:
        rule: the rule so far, without a calibration.
        logits: scores of the documents, ``[N, V]``.
        targets: their true nodes, bool ``[N, V]``.
        tuning: see :func:`~ptmt_lightning.thresholds.tune_thresholds`; None, or a rule without thresholds, to keep
            those that are there.
        calibrate: method of calibration, or None for none.
        classes: the classes that the tuned macro average runs over.
    """
    if tuning is not None and rule.has_thresholds:
        chosen = tune_thresholds(
            rule.probabilities(logits), targets, rule.taxonomy, tuning=tuning, prune=rule.prune, classes=classes
        )
        rule = replace(rule, thresholds=tuple(chosen))
    if calibrate is not None:
        calibration = CALIBRATIONS[calibrate].fit(
            rule.decision.probabilities, logits, targets, rule.taxonomy.level_sizes
        )
        thresholds = tuple(calibration.threshold(level, value) for level, value in enumerate(rule.thresholds))
        rule = replace(rule, calibration=calibration, thresholds=thresholds)
    return rule


def uncalibrated_counts(rule: DecisionRule, logits: Tensor, targets: Tensor) -> Tensor:
    """Count true nodes and others by the probability that they would have without calibration.

    Args:
        rule: the rule with its calibration.
        logits: scores of the documents, ``[N, V]``.
        targets: their true nodes, bool ``[N, V]``.

    Returns:
        Counts as of :func:`~ptmt_lightning.metrics.score_counts`.
    """
    probabilities = replace(rule, calibration=None).probabilities(logits)
    return score_counts(rule.taxonomy, probabilities, rule.taxonomy.augment(targets))


def calibration_summary(rule: DecisionRule, before: Tensor | None, after: Tensor | None) -> dict[str, Any] | None:
    """Return what ``result.json`` says about the calibration of a rule: what was fitted, and the errors on test.

    Args:
        rule: the rule of the finished run.
        before: counts of test scores as they would be without calibration, or None without a test.
        after: counts of test scores, or None without a test.

    Returns:
        None without a calibration.
    """
    if rule.calibration is None:
        return None
    errors = {
        f"test_error_{name}": round(calibration_error(reliability(counts)), 6)
        for name, counts in (("before", before), ("after", after))
        if counts is not None
    }
    return rule.calibration.to_json() | errors
