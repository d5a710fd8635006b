"""The pictures of a report's page: each of one data set, as SVG whose colours follow the page's theme."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ptmt_lightning.reporting.findings import COSTS, Configuration, Finding
from ptmt_lightning.utils.plots import COLOURS, INK, LINE, MUTED, PAPER, log_scale, styled

MOST_DRAWN = 8  # configurations in one panel of curves, the best ones
_OFFSETS = {"documents": 0.12, "seeds": 0.0, "welch": 0.0, "both": -0.12}  # of a difference's intervals, in rows
_DASHES = ("-", "--", ":", "-.")
_THEME = {INK: "ink", MUTED: "muted", LINE: "line", PAPER: "paper"} | {
    colour: f"c{index}" for index, colour in enumerate(COLOURS)
}

Looks = Mapping[str, tuple[str, str]]  # colour and marker by system
Rows = Mapping[str, Sequence[Mapping[str, Any]]]  # the rows of run_rows by name of the configuration


class Panel(NamedTuple):
    """A picture and the words for it."""

    svg: str
    caption: str


def panels(finding: Finding, rows: Rows, looks: Looks) -> list[Panel]:
    """Return the pictures of a data set: differences first, then shares, costs, curves and levels.

    Args:
        finding: the configurations of the data set.
        rows: of each of its configurations, those of :func:`~ptmt_lightning.reporting.run_rows.run_rows`.
        looks: colour and marker of each system.
    """
    metric, split = finding.metric, finding.split
    drawn = finding.configurations[:MOST_DRAWN]
    found = [
        (_forest(finding, looks), f"Differences in {metric} to {finding.reference.name}, with 95 % intervals, from "
         "above over documents, over seeds and over both. Right of the line is better."),
        (_shares(finding, looks), f"{metric} over the share of the training set; bands from lowest to highest seed."),
        *(
            (_cost(finding, key, looks), f"{metric} against {what}, {unit}: up and left is better.")
            for key, (what, unit, _) in COSTS.items()
        ),
        (_curves(drawn, rows, looks, "score", f"validation {metric}"), f"Validation {metric} while training: means, "
         "bands from lowest to highest seed."),
        (_curves(drawn, rows, looks, "loss", "training loss"), "Training loss, averaged over stretches of steps: "
         "means, bands from lowest to highest seed. Losses of different systems are not on one scale."),
        (_levels(drawn, rows, looks), f"Macro F1 of each level on {split}: means, lines from lowest to highest seed."),
    ]  # fmt: skip
    return [
        Panel(svg(figure, f"{finding.dataset}: {caption}"), caption) for figure, caption in found if figure is not None
    ]


@styled
def svg(figure: Figure, label: str) -> str:
    """Return a figure as an element ``<svg>`` that scales, and has a name for those who can't see it.

    Args:
        figure: its colours of ``utils.plots`` become variables of the page's style, such as ``var(--c0)``.
        label: what it shows.
    """
    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"\s*\n\s*", "\n", text)
    for colour, name in _THEME.items():
        text = text.replace(colour, f"var(--{name})")
    text = re.sub(r"font: ([\w ]*?)([\d.]+)px [^;\"]*", r"font: \1\2px system-ui, sans-serif", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)


def _figure(width: float = 4.4, height: float = 3.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


@styled
def _forest(finding: Finding, looks: Looks) -> Figure | None:
    dashes = dashed(finding.configurations)
    rows = [(one, dash) for one, dash in dashes if one.difference.tested]
    if not rows:
        return None
    figure, axes = _figure(height=0.9 + 0.42 * len(rows))
    axes.axvline(0, color=MUTED, linewidth=1)
    for at, (configuration, dash) in enumerate(reversed(rows)):
        colour, marker = looks[configuration.system]
        middle = configuration.mean - finding.reference.mean
        for name, found in configuration.difference.deciding.items():
            height = at + _OFFSETS[name]
            axes.plot([found.low, found.high], [height, height], color=colour, linewidth=1.8, solid_capstyle="butt")
        axes.plot(middle, at, marker, color=colour, markerfacecolor=_fill(colour, dash), markersize=6)
        axes.annotate(
            f"{configuration.name}  {middle:+.3f}", (0, at), (0, 7), xycoords=("axes fraction", "data"),
            textcoords="offset points", fontsize=8,
        )  # fmt: skip
    axes.set(xlabel=f"{finding.metric}, difference to {finding.reference.name}", yticks=[], ylim=(-0.5, len(rows)))
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    # An interval over two or three seeds may be many times as wide as all that is to be seen.
    tested = [row.difference.tested for row, _ in rows]
    narrow = [found[name] for found in tested for name in ("documents", "both") if name in found]
    inner = [end for found in narrow for end in (found.low, found.high)] or axes.get_xlim()
    middles = [0, *(row.mean - finding.reference.mean for row, _ in rows)]
    low, high = min(*inner, *middles), max(*inner, *middles)
    margin = 0.6 * (high - low) or 0.01
    axes.set_xlim(low - margin, high + margin)
    return figure


@styled
def _shares(finding: Finding, looks: Looks) -> Figure | None:
    points: dict[str, dict[float, list[float]]] = {}
    for configuration in finding.configurations:  # the best of each share, as they come
        share = float(configuration.runs[0].settings.get("dataset.train_fraction", 1))
        scores = [run.result[finding.split].get(finding.metric) for run in configuration.runs]
        points.setdefault(configuration.system, {}).setdefault(share, [s for s in scores if s is not None])
    if max(map(len, points.values())) < 2:
        return None
    figure, axes = _figure()
    for system, found in points.items():
        colour, marker = looks[system]
        shares = sorted(found)
        _band(axes, np.array(shares), [found[share] for share in shares], colour, marker=marker)
    axes.set(xlabel="share of the training set", ylabel=finding.metric)
    shares = sorted({share for found in points.values() for share in found})
    if len(shares) <= 6:
        axes.set_xticks(shares, [f"{share:.3g}" for share in shares])
    return figure


@styled
def _cost(finding: Finding, key: str, looks: Looks) -> Figure | None:
    known = [configuration for configuration in finding.configurations if key in configuration.costs]
    if len(known) < 2:
        return None
    figure, axes = _figure()
    for configuration, dash in dashed(known):
        colour, marker = looks[configuration.system]
        axes.errorbar(
            configuration.costs[key], configuration.mean, yerr=configuration.deviation, fmt=marker, color=colour,
            elinewidth=1.2, markerfacecolor=_fill(colour, dash),
        )  # fmt: skip
    axes.set(xlabel=f"{COSTS[key][0]}, {COSTS[key][1]}", ylabel=f"{finding.metric} on {finding.split}")
    return figure


@styled
def _curves(drawn: Sequence[Configuration], rows: Rows, looks: Looks, curve: str, label: str) -> Figure | None:
    figure, axes = _figure()
    for configuration, dash in dashed(drawn):
        members = [row for row in rows[configuration.name] if row[f"{curve}_steps"]]
        if not members:
            continue
        # Where a run ended earlier than the others, means over the rest would jump.
        shortest = min(members, key=lambda row: row[f"{curve}_steps"][-1])[f"{curve}_steps"]
        steps = np.array([step for step in shortest if step >= max(row[f"{curve}_steps"][0] for row in members)])
        values = np.array([np.interp(steps, row[f"{curve}_steps"], row[curve]) for row in members])
        marker = looks[configuration.system][1] if len(steps) <= 20 else ""
        _band(axes, steps, values.T, looks[configuration.system][0], dash, marker)
    if not axes.lines:
        return None
    axes.set(xlabel="step", ylabel=label)
    if curve == "loss":
        log_scale(axes, "y")
    return figure


@styled
def _levels(drawn: Sequence[Configuration], rows: Rows, looks: Looks) -> Figure | None:
    figure, axes = _figure()
    wide = 0.6 / len(drawn)
    for at, (configuration, dash) in enumerate(dashed(drawn)):
        colour, marker = looks[configuration.system]
        members = [row["level_f1"] for row in rows[configuration.name] if row["level_f1"]]
        for level, scores in enumerate(zip(*members, strict=False), start=1):
            x = level + wide * (at - (len(drawn) - 1) / 2)
            axes.plot([x, x], [min(scores), max(scores)], color=colour, linewidth=1.2)
            axes.plot(x, np.mean(scores), marker, color=colour, markerfacecolor=_fill(colour, dash))
    if not axes.lines:
        return None
    axes.set(xlabel="level", ylabel="macro F1", ylim=(-0.02, 1.02))
    axes.set_xticks(range(1, 1 + max(len(row["level_f1"]) for one in drawn for row in rows[one.name])))
    axes.grid(visible=False, axis="x")
    return figure


def dashed(drawn: Sequence[Configuration]) -> list[tuple[Configuration, str]]:
    """Return configurations, each with a dash to tell it from others of its system; only ``-`` has full marks."""
    seen: dict[str, int] = {}
    found = []
    for configuration in drawn:
        index = seen[configuration.system] = seen.get(configuration.system, -1) + 1
        found.append((configuration, _DASHES[index % len(_DASHES)]))
    return found


def _fill(colour: str, dash: str) -> str:
    return colour if dash == "-" else PAPER


def _band(axes: Axes, x: Any, values: Any, colour: str, dash: str = "-", marker: str = "") -> None:
    low, mean, high = (np.array([of(scores) for scores in values]) for of in (min, np.mean, max))
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(x, mean, dash, color=colour, marker=marker, markerfacecolor=_fill(colour, dash))
