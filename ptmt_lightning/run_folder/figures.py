"""Pictures of one run, drawn only from the files in its folder, so that they can be drawn again at any time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure

from ptmt_lightning.metrics import calibration_error
from ptmt_lightning.run_folder.curves import loss_terms
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.utils.plots import MARKERS, MUTED, log_scale, styled
from ptmt_lightning.utils.tables import read_csv

_MAX_NAMED_LABELS = 160  # with more of them, names on the map would cover each other


def draw(folder: RunFolder) -> list[Path]:
    """Draw into ``figures/`` each picture whose table the run has, and return the paths of the pictures."""
    folder.figures.mkdir(exist_ok=True)
    return [path for name in PICTURES if (path := draw_one(folder, name))]


@styled
def draw_one(folder: RunFolder, name: str) -> Path | None:
    """Draw one of :data:`PICTURES` into ``figures/`` and return its path; None if the run has not its table."""
    draw_table, source = PICTURES[name]
    table = source(folder)
    if not table.exists():
        return None
    # A label may be called NA, but an empty cell of metrics.csv is a missing value.
    figure = draw_table(read_csv(table, keep_default_na=table == folder.metrics))
    folder.figures.mkdir(exist_ok=True)
    path = folder.figures / f"{name}.png"
    temporary = path.with_suffix(".tmp")
    try:
        figure.savefig(temporary, format="png")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # still there only after an error
    return path


@styled
def learning_curves(metrics: pd.DataFrame) -> Figure:
    """Draw loss terms and validation scores over steps, from ``metrics.csv``."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in loss_terms(map(str, metrics)):
        points = metrics[["step", f"train/{name}"]].dropna()
        left.plot(points["step"], points[f"train/{name}"], label=name, linewidth=1)
    left.set(title="Training", xlabel="step", ylabel="loss")
    log_scale(left, "y")
    for name, marker in zip(("h_f1_macro", "h_f1_micro", "h_auprc", "exact_match"), MARKERS, strict=False):
        if f"val/{name}" in metrics:
            points = metrics[["step", f"val/{name}"]].dropna()
            right.plot(points["step"], points[f"val/{name}"], label=name, marker=marker)
    right.set(title="Validation", xlabel="step", ylabel="score", ylim=(0, 1), xlim=left.get_xlim())
    for axes in (left, right):
        if axes.lines:
            axes.legend()
    return figure


@styled
def label_f1(labels: pd.DataFrame) -> Figure:
    """Draw F1 of labels by level, with mean and quartiles, and over their support, from ``per_label.csv``."""
    seen = labels[labels["support"] + labels["predicted"] > 0]
    levels = sorted(seen["level"].unique())
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 2))
    means, quartiles = [], []
    for (level, rows), marker in zip(seen.groupby("level"), cycle(MARKERS), strict=False):
        means.append(float(rows["f1"].mean()))
        quartiles.append(rows["f1"].quantile([0.25, 0.75]).tolist())
        left.annotate(f" {means[-1]:.3f}", (len(means), means[-1]), (6, 0), textcoords="offset points", va="center")
        right.scatter(
            rows["support"].clip(lower=0.5), rows["f1"], s=14, alpha=0.7, marker=marker, label=f"level {level}"
        )
    at = range(1, len(levels) + 1)
    left.vlines(at, *np.reshape(quartiles, (-1, 2)).T, colors=MUTED, linewidth=2, label="middle half of the labels")
    left.plot(at, means, "o", label="mean: flat macro F1")
    left.set(title="By level", xlabel="level", ylabel="F1", ylim=(-0.03, 1.03), xlim=(0.5, len(levels) + 0.8))
    left.set_xticks(at, [str(level) for level in levels])
    right.set(title="By label", xlabel="documents with the label", ylabel="F1", ylim=(-0.03, 1.03))
    log_scale(right, "x")
    for axes in (left, right):
        axes.legend(loc="lower right")
    return figure


@styled
def reliability(bins: pd.DataFrame) -> Figure:
    """Draw how often labels are true at each probability, and how many labels have it, from ``reliability.csv``."""
    figure = Figure(figsize=(5, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    upper.plot([0, 1], [0, 1], color=MUTED, linestyle=":", label="as it should be")
    upper.set(ylabel="share that is true", xlim=(0, 1), ylim=(0, 1))
    names = bins["calibration"] if "calibration" in bins else pd.Series("none", bins.index)  # not before 0.2
    for (name, rows), marker in zip(bins.groupby(names, sort=False), MARKERS, strict=False):
        filled = rows[rows["labels"] > 0]
        label = {"none": "this run", "before": "before calibration", "after": "calibrated"}[str(name)]
        label += f": expected error {calibration_error(rows.to_dict('records')):.4f}"
        upper.plot(filled["probability"], filled["true"] / filled["labels"], marker=marker, label=label)
        # Dots: a bar on a logarithmic axis has no zero to start from.
        lower.plot(filled["probability"], filled["labels"], marker, linestyle="")
    upper.legend()
    lower.set(xlabel="probability", ylabel="labels")
    log_scale(lower, "y")
    return figure


@styled
def label_map(labels: pd.DataFrame) -> Figure:
    """Draw the label-token embeddings of the lower levels, coloured by parent, from ``label_embeddings.csv``."""
    figure = Figure(figsize=(12, 9), layout="constrained")
    axes = figure.subplots()
    below = labels[labels["level"] > 1] if (labels["level"] > 1).any() else labels
    parents = list(dict.fromkeys(below["parent"]))
    colour = {parent: colormaps["tab20"](index % 20) for index, parent in enumerate(parents)}
    axes.scatter(below["x"], below["y"], c=[colour[parent] for parent in below["parent"]], s=24)
    if len(below) <= _MAX_NAMED_LABELS:
        for _, row in below.iterrows():
            axes.annotate(row["label"], (row["x"], row["y"]), fontsize=6, alpha=0.8)
    if len(parents) <= 20:
        for parent in parents:
            # The space keeps names that begin with _, which Matplotlib would leave out.
            axes.scatter([], [], color=colour[parent], label=f" {parent}")
        axes.legend(title="parent", fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set(xticks=[], yticks=[])
    return figure


# The pictures by name: what draws each, and the table in the run's folder that it is drawn from.
PICTURES: dict[str, tuple[Callable[[pd.DataFrame], Figure], Callable[[RunFolder], Path]]] = {
    "learning_curves": (learning_curves, lambda folder: folder.metrics),
    "label_f1": (label_f1, lambda folder: folder.per_label),
    "reliability": (reliability, lambda folder: folder.reliability),
    "label_map": (label_map, lambda folder: folder.label_embeddings),
}
