"""The fastest exported form of a model on this machine: all forms are made and measured, and one is kept."""

from __future__ import annotations

import platform
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ptmt_lightning.inference.classifier import Classifier
from ptmt_lightning.inference.engines import computes_bfloat16
from ptmt_lightning.inference.export import Form, open_to_export, traced, write_exported, write_settings
from ptmt_lightning.inference.sample_texts import made_up
from ptmt_lightning.utils.files import new_folder

_NUM_MADE_UP = 600
_NUM_TIMED, _ROUNDS = 64, 3
_PYTORCH = "pytorch"  # the trained model itself
# The share of texts whose labels a form has to leave as they are: chosen, not derived. No score that is a mean over
# texts can change by more than the rest; in experiments/cpu_speed scores changed by 0 to 0.4 of it.
SAME_LABELS = 0.95


class Measured(NamedTuple):
    """What was measured of one form, or why it was not; a ``problem`` keeps it from being taken."""

    form: str
    texts_per_second: float | None = None
    over_pytorch: float | None = None  # throughput over the trained model's
    p50_ms: float | None = None  # of one text
    p99_ms: float | None = None
    same_labels: float | None = None  # share of texts with the same labels as of the trained model
    largest_difference: float | None = None  # of probabilities
    mean_difference: float | None = None
    problem: str = ""


def export_fastest(model: str, target: Path, *, texts: Sequence[str] = ()) -> tuple[str, list[Measured]]:
    """Write a model in the form that is the fastest on this machine, of those that predict what the model does.

    Forms whose package is missing are left out. What was measured is written into the folder's settings, too.

    Args:
        model: folder of a trained model, or its name on a hub.
        target: the folder to make.
        texts: texts like those to be predicted, which half of them are fitted to and the others measured with;
            without, it is measured with some that are made up of names of labels, and none is fitted to them, as they
            are too different.

    Returns:
        The form that was taken, and what was measured of all, the trained model first.

    Raises:
        ValueError: ``target`` exists, the model can't be exported, or no form can be taken.
    """
    classifier = open_to_export(model, target)
    chosen = texts or made_up(classifier.taxonomy, _NUM_MADE_UP, classifier.folder.system.text_budget)
    fitting, timed = chosen[::2], chosen[1::2] or chosen  # apart, so that 8 bits are not measured by what they fit
    with new_folder(target) as folder:
        forms, opened, problems = _forms(), {_PYTORCH: classifier}, {}
        program = traced(classifier)
        for name, form in forms.items():
            (folder / name).mkdir()
            try:
                write_exported(classifier, program, folder / name, form, fitting if texts and form.fits_texts else ())
                opened[name] = Classifier.from_pretrained(folder / name)
            except ValueError as error:
                problems[name] = f"left out: {error}"
        rows = [*_measure(opened, timed), *(Measured(name, problem=problem) for name, problem in problems.items())]
        if not (allowed := [row for row in rows if not row.problem and row.form != _PYTORCH]):
            reasons = "; ".join(f"{row.form} {row.problem}" for row in rows[1:])
            raise ValueError(f"{model}: no form can be taken: {reasons}")
        best = max(allowed, key=lambda row: row.over_pytorch or 0).form
        for path in (folder / best).iterdir():
            path.rename(folder / path.name)
        for name in forms:
            shutil.rmtree(folder / name)
        measured = {
            "cpu": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "texts": len(timed) if texts else 0,  # 0: they were made up
            "forms": [row._asdict() for row in rows],
        }
        write_settings(classifier, folder, forms[best].settings | {"measured": measured})
    return best, rows


def table(rows: Sequence[Measured], best: str) -> str:
    """Return what was measured as a table for people.

    Args:
        rows: of each form.
        best: the form that was taken.
    """
    lines = ["form                texts/s  x pytorch  p50 ms  p99 ms  same labels  largest, mean difference"]
    for row in rows:
        if row.texts_per_second is None:
            lines.append(f"{row.form:<18}  {row.problem}")
            continue
        speeds = f"{row.texts_per_second:>7.1f}  {row.over_pytorch:>9.2f}  {row.p50_ms:>6.1f}  {row.p99_ms:>6.1f}"
        agreement = f"{row.same_labels:>11.1%}  {row.largest_difference:.4f}, {row.mean_difference:.5f}"
        lines.append(f"{row.form:<18}  {speeds}  {agreement}  {'<- taken' if row.form == best else row.problem}")
    return "\n".join(line.rstrip() for line in lines)


def _forms() -> dict[str, Form]:
    """Return the forms to be tried, by name; OpenVINO computes what is not in 8 bits in bfloat16 where the CPU can."""
    reduced = computes_bfloat16()
    forms = [Form("onnx"), Form("onnx", int8=True), Form("openvino")]
    forms += [Form("openvino", bfloat16=True)] if reduced else []
    forms += [Form("openvino", int8=True, bfloat16=reduced)]
    return {form.name: form for form in forms}


def _measure(opened: Mapping[str, Classifier], texts: Sequence[str]) -> list[Measured]:
    """Measure opened models by turns, so that other load on the machine affects all alike."""
    texts = sorted(texts, key=len)
    rule = opened[_PYTORCH].rule
    expected = opened[_PYTORCH].probabilities(texts)
    agreements, problems = {}, {}
    for name, classifier in opened.items():
        try:
            found = classifier.probabilities(texts)
        except ValueError as error:
            problems[name] = f"refused: {error}"
            continue
        same = (rule.predict(found) == rule.predict(expected)).all(dim=1).float().mean().item()
        differences = (found - expected).abs()
        agreements[name] = same, differences.max().item(), differences.mean().item()
        if same < SAME_LABELS:
            problems[name] = f"refused: less than {SAME_LABELS:.0%} same labels"
    timed = texts[:: max(1, len(texts) // _NUM_TIMED)]
    crowd: dict[str, list[float]] = {name: [] for name in agreements}
    alone: dict[str, list[float]] = {name: [] for name in agreements}
    for _ in range(_ROUNDS):
        for name in agreements:
            crowd[name].append(_seconds(opened[name], timed))
    for text in timed:
        for name in agreements:
            alone[name].append(_seconds(opened[name], text))
    rows = []
    for name, agreement in agreements.items():
        ratio = statistics.median(a / b for a, b in zip(crowd[_PYTORCH], crowd[name], strict=True))
        p50, p99 = np.quantile(alone[name], (0.5, 0.99)).tolist()
        speed = len(timed) / statistics.median(crowd[name])
        rows.append(Measured(name, speed, ratio, 1000 * p50, 1000 * p99, *agreement, problems.get(name, "")))
    return rows + [Measured(name, problem=problem) for name, problem in problems.items() if name not in agreements]


def _seconds(classifier: Classifier, texts: str | Sequence[str]) -> float:
    started = time.perf_counter()
    classifier.predict(texts)
    return time.perf_counter() - started
