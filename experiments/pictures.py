"""Pictures over the seeds of an experiment: dots with their deviations, or curves, and the paper's figures beside."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ptmt_lightning.utils.plots import COLOURS, MUTED, looks, styled

_COLUMNS = 3  # panels beside each other


@styled
def curves(table: pd.DataFrame, metric: str, paper: pd.DataFrame) -> Figure:
    """Draw the score of each variant over the share of the training set, as in Figure 2 of the paper.

    Args:
        table: the table of ``summarize.summary``.
        metric: the score to draw.
        paper: the paper's scores; columns ``dataset``, ``variant``, ``train_fraction`` and the metric. May be empty.
    """
    look = looks([*table["variant"], *paper["variant"]])
    figure, panels = _panels([*table["dataset"], *paper["dataset"]], height=3.6)
    shares = sorted({*table["train_fraction"], *paper["train_fraction"]})
    for dataset, axes in panels.items():
        ours, theirs = table[table["dataset"] == dataset], paper[paper["dataset"] == dataset]
        for variant, rows in ours.groupby("variant", sort=False):
            points, (colour, marker) = rows.sort_values("train_fraction"), look[str(variant)]
            mean, deviation = points[f"{metric}_mean"], points[f"{metric}_std"].fillna(0)
            axes.fill_between(points["train_fraction"], mean - deviation, mean + deviation, color=colour, alpha=0.18)
            axes.plot(points["train_fraction"], mean, marker=marker, color=colour, label=str(variant))
        for variant, points in theirs.groupby("variant", sort=False):
            colour, marker = look[str(variant)]
            axes.plot(
                points["train_fraction"], points[metric], "--", marker=marker, color=colour, markerfacecolor="white",
                label=f"{variant}, the paper's",
            )  # fmt: skip
        axes.set(title=_title(dataset, ours), xlabel="share of the training set", ylabel=metric, xscale="log")
        axes.set_xticks(shares, [f"{share * 32:.3g}/32" for share in shares], minor=False)
        axes.minorticks_off()
        axes.legend(loc="lower right")
    return _noted(figure, table, paper, "band")


@styled
def dots(table: pd.DataFrame, metric: str, paper: pd.DataFrame, against: str | None = None) -> Figure:
    """Draw the score of each variant, or its difference, as a dot with a line for the deviation, the best on top.

    Args:
        table: the table of ``summarize.summary``; with ``difference`` that is drawn.
        metric: the score to draw.
        paper: the paper's scores, as for :func:`curves`.
        against: the variant that differences are taken from; None to draw the score itself.
    """
    drawn = "difference" if against else metric
    paper = _differences(paper, metric, against) if against else paper.rename(columns={metric: drawn})
    most = max([*table["dataset"].value_counts(), *paper["dataset"].value_counts()])
    figure, panels = _panels([*table["dataset"], *paper["dataset"]], height=1 + 0.24 * most)
    for dataset, axes in panels.items():
        ours = table[(table["dataset"] == dataset) & table[f"{drawn}_mean"].notna()]
        theirs = paper[paper["dataset"] == dataset].set_index("variant")[drawn]
        _dot_panel(axes, ours.set_index("variant"), theirs, drawn, mixed=table["seeds"].nunique() > 1)
        axes.set(title=_title(dataset, ours), xlabel=f"{metric}, difference to {against}" if against else metric)
        if against:
            axes.axvline(0, color=MUTED, linewidth=1)
    return _noted(figure, table, paper, "line")


def _dot_panel(axes: Axes, ours: pd.DataFrame, theirs: pd.Series[float], drawn: str, *, mixed: bool) -> None:
    means = ours[f"{drawn}_mean"]
    order = list((means if len(means) else theirs).sort_values().index)
    names = []
    for row, variant in enumerate(order):
        is_best = row == len(order) - 1
        colour = COLOURS[1] if is_best else COLOURS[0]
        names.append(str(variant))
        if variant in means.index:
            deviation, seeds = ours[f"{drawn}_std"].fillna(0)[variant], ours["seeds"][variant]
            axes.errorbar(means[variant], row, xerr=deviation or None, fmt="o", color=colour, elinewidth=1.6)
            names[-1] += " (one seed)" if mixed and seeds == 1 else ""
        if variant in theirs.index:
            axes.plot(theirs[variant], row, "D", color=colour, markerfacecolor="white")
        if is_best:
            score = means[variant] if variant in means.index else theirs[variant]
            axes.annotate(
                f"{score:+.3f}" if drawn == "difference" else f"{score:.3f}", (score, row), (0, 5),
                textcoords="offset points", ha="center", color=colour, weight="bold",
            )  # fmt: skip
    axes.set_yticks(range(len(order)), names)
    axes.set_ylim(-0.6, len(order) - 0.2)
    axes.margins(x=0.08)
    axes.get_yticklabels()[-1].set(color=COLOURS[1], weight="bold")


def _panels(datasets: list[str], *, height: float) -> tuple[Figure, dict[str, Axes]]:
    """Return a figure with one panel for each different data set; none shares an axis with another."""
    different = list(dict.fromkeys(datasets))
    columns = min(_COLUMNS, len(different))
    rows = math.ceil(len(different) / columns)
    figure = Figure(figsize=(4.6 * columns, height * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flat
    panels = dict(zip(different, grid, strict=False))
    for unused in grid:
        unused.remove()
    return figure, panels


def _differences(paper: pd.DataFrame, metric: str, against: str | None) -> pd.DataFrame:
    base = paper[paper["variant"] == against].set_index("dataset")[metric]
    return paper.assign(difference=paper[metric] - paper["dataset"].map(base)).dropna(subset=["difference"])


def _title(dataset: str, ours: pd.DataFrame) -> str:
    return dataset if len(ours) else f"{dataset}, as the paper has it"


def _noted(figure: Figure, table: pd.DataFrame, paper: pd.DataFrame, shape: str) -> Figure:
    has_seeds = (table["seeds"] > 1).any()
    note = f"Dots are means over seeds, the {shape} is their standard deviation." if has_seeds else "One seed each."
    figure.supxlabel(note + (" Hollow: the paper's." if len(paper) else ""), fontsize=8, color=MUTED)
    return figure
