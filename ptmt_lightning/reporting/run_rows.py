"""What a report's page shows of each run, read from the files in its folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ptmt_lightning.reporting.findings import Finding, run_costs
from ptmt_lightning.run_folder.finished import Run, known_settings
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.utils.tables import read_csv

log = logging.getLogger(__name__)

_POINTS = 40  # a curve has at most so many, to keep the page small


def run_rows(
    findings: Sequence[Finding], metrics: Sequence[str], split: str
) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """Return one row for each run, and the different lists of labels that the runs have.

    The values in a row's ``label_f1`` belong to the labels in that list whose index is the row's ``labels``.
    """
    members = [(run, one.name) for found in findings for one in found.configurations for run in one.runs]
    runs = [run for run, _ in members]
    varying = [key for key in known_settings(runs) if len({run.settings.get(key) for run in runs}) > 1]
    base = os.path.commonpath([run.folder.resolve().parent for run in runs])
    lists: dict[tuple[str, ...], int] = {}
    rows = []
    for run, name in members:
        labels, label_f1 = _label_f1(run, split)
        settings = {key: run.settings.get(key, "-") for key in varying}
        identity = {
            "run": str(run.folder.resolve().relative_to(base)), "dataset": run.result["dataset"],
            "configuration": name, "seed": run.result["seed"],
        }  # fmt: skip
        rows.append(
            identity
            | {metric: run.result[split].get(metric) for metric in metrics}
            | run_costs(run.result)
            | _curves(RunFolder(run.folder).metrics, metrics[0])
            | _levels(run.result[split])
            | {
                "labels": lists.setdefault(labels, len(lists)),
                "label_f1": label_f1,
                "settings": settings,
                "words": " ".join(map(str, (*identity.values(), *settings.values()))).lower(),
            }
        )
    return rows, [list(labels) for labels in lists]


def _curves(path: Path, metric: str) -> dict[str, Any]:
    metrics = _read(path, ["step"], ["train/loss", f"val/{metric}"])
    curves: dict[str, Any] = {}
    for name, key in (("loss", "train/loss"), ("score", f"val/{metric}")):
        points = metrics[["step", key]].dropna() if key in metrics else pd.DataFrame(columns=["step", key])
        wide = len(points) // _POINTS + 1
        if name == "loss":  # of single batches, whose noise would hide it
            points = points.groupby(np.arange(len(points)) // wide).mean()
        else:  # counted from the end, so that the last point is among them
            points = points.iloc[::-wide].iloc[::-1]
        curves |= {f"{name}_steps": points["step"].tolist(), name: _rounded(points[key])}
    return curves


def _levels(scores: dict[str, float]) -> dict[str, list[float]]:
    found = [score for name, score in scores.items() if name.startswith("f1_macro_level_")]
    return {"level_f1": _rounded(found)}


def _label_f1(run: Run, split: str) -> tuple[tuple[str, ...], list[float]]:
    table = _read(RunFolder(run.folder).per_label, ["label", "f1"], ["f1"], keep_default_na=False, dtype={"label": str})
    if split != "test" or table.empty:
        return (), []
    table = table.sort_values("label", kind="stable")  # runs of a data set share one list of labels
    return tuple(table["label"]), _rounded(table["f1"])


def _read(path: Path, required: Sequence[str], numbers: Sequence[str], **options: Any) -> pd.DataFrame:
    """Return a table of a run; an empty one, with a warning if it is broken, where it can't be had.

    Args:
        path: the file.
        required: columns that a table has.
        numbers: columns that hold numbers, where they are there.
        options: of ``pandas.read_csv``.
    """
    try:
        table = read_csv(path, **options)
        if missing := [name for name in required if name not in table]:
            raise ValueError(f"no column {missing[0]!r}")
        return table.assign(**{name: pd.to_numeric(table[name]) for name in numbers if name in table})
    except (FileNotFoundError, pd.errors.EmptyDataError):  # the run had no logger, or was cut off
        return pd.DataFrame()
    except (ValueError, OSError) as error:
        log.warning("%s is broken (%s), and not shown", path, " ".join(str(error).split()))
        return pd.DataFrame()


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(float(value), 4) for value in values]


def best_two(rows: Sequence[dict[str, Any]], metric: str) -> list[int]:
    """Return the indices of the best runs of the two best configurations on the first data set."""
    scores = pd.Series([row[metric] for row in rows], dtype=float).fillna(-1)
    order = sorted(range(len(rows)), key=lambda i: (rows[i]["dataset"], -scores[i]))
    best = {rows[i]["configuration"]: i for i in reversed(order) if rows[i]["dataset"] == rows[order[0]]["dataset"]}
    return [i for i in order if i in best.values()][:2]
