"""Pictures of one run, drawn only from the files in its folder, so that they can be drawn again at any time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure

from ptmt_lightning.run_folder.curves import loss_terms
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.utils.tables import read_csv

_MAX_NAMED_LABELS = 160  # with more of them, names on the map would cover each other


def draw(folder: RunFolder) -> list[Path]:
    """Draw into ``figures/`` each picture whose table the run has, and return the paths of the pictures."""
    folder.figures.mkdir(exist_ok=True)
    sources = {
        "learning_curves": folder.metrics, "label_f1": folder.per_label, "reliability": folder.reliability,
        "label_map": folder.label_embeddings,
    }  # fmt: skip
    written = []
    for name, source in sources.items():
        if not source.exists():
            continue
        # A label may be called NA, but an empty cell of metrics.csv is a missing value.
        figure = _PICTURES[name](read_csv(source, keep_default_na=source == folder.metrics))
        path = folder.figures / f"{name}.png"
        figure.savefig(path.with_suffix(".tmp"), format="png", dpi=120)
        path.with_suffix(".tmp").replace(path)
        written.append(path)
    return written


def learning_curves(metrics: pd.DataFrame) -> Figure:
    """Draw loss terms and validation scores over steps, from ``metrics.csv``."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in loss_terms(map(str, metrics)):
        points = metrics[["step", f"train/{name}"]].dropna()
        left.plot(points["step"], points[f"train/{name}"], label=name, linewidth=1)
    left.set(xlabel="step", ylabel="training loss", yscale="log")
    for name in ("h_f1_macro", "h_f1_micro", "h_auprc", "exact_match"):
        if f"val/{name}" in metrics:
            points = metrics[["step", f"val/{name}"]].dropna()
            right.plot(points["step"], points[f"val/{name}"], label=name, marker=".")
    right.set(xlabel="step", ylabel="validation", ylim=(0, 1), xlim=left.get_xlim())
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    return figure


def label_f1(labels: pd.DataFrame) -> Figure:
    """Draw macro F1 of each level, and F1 of each label over its support, from ``per_label.csv``."""
    seen = labels[labels["support"] + labels["predicted"] > 0]
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 2))
    for level, rows in seen.groupby("level"):
        mean = float(rows["f1"].mean())
        bar = left.bar(level, mean)
        left.bar_label(bar, fmt="%.3f")
        right.scatter(rows["support"].clip(lower=0.5), rows["f1"], s=14, alpha=0.7, label=f"level {level}")
    left.set(xlabel="level", ylabel="macro F1, flat", ylim=(0, 1.08), xticks=sorted(seen["level"].unique()))
    right.set(xlabel="documents with the label", ylabel="F1 of the label", xscale="log", ylim=(-0.03, 1.03))
    right.grid(alpha=0.3)
    right.legend()
    return figure


def reliability(bins: pd.DataFrame) -> Figure:
    """Draw how often labels are true at each probability, and how many labels have it, from ``reliability.csv``."""
    figure = Figure(figsize=(5, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    filled = bins[bins["labels"] > 0]
    upper.plot([0, 1], [0, 1], color="grey", linestyle=":", label="calibrated")
    upper.plot(filled["probability"], filled["true"] / filled["labels"], marker="o", label="this run")
    upper.set(ylabel="share that is true", xlim=(0, 1), ylim=(0, 1), title=f"expected error {calibration(bins):.4f}")
    upper.grid(alpha=0.3)
    upper.legend()
    lower.bar(bins["low"], bins["labels"].clip(lower=0.5), width=bins["high"] - bins["low"], align="edge", alpha=0.7)
    lower.set(xlabel="probability", ylabel="labels", yscale="log")
    return figure


def calibration(bins: pd.DataFrame) -> float:
    """Return the expected calibration error of the table ``reliability.csv``.

    It is the mean distance between the probability of a bin and its share of true labels, weighted by its labels.
    """
    filled = bins[bins["labels"] > 0]
    distance = (filled["true"] / filled["labels"] - filled["probability"]).abs()
    return float(np.average(distance, weights=filled["labels"]))


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
            axes.annotate(row["label"], (row["x"], row["y"]), fontsize=6, alpha=0.8, parse_math=False)
    if len(parents) <= 20:
        for parent in parents:
            # The space keeps names that begin with _, which Matplotlib would leave out.
            axes.scatter([], [], color=colour[parent], label=f" {parent}")
        legend = axes.legend(title="parent", fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        for text in legend.get_texts():
            text.set_parse_math(False)
    axes.set(xticks=[], yticks=[])
    return figure


_PICTURES: dict[str, Callable[[pd.DataFrame], Figure]] = {
    "learning_curves": learning_curves,
    "label_f1": label_f1,
    "reliability": reliability,
    "label_map": label_map,
}
