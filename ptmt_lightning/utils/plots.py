"""The one look of all pictures: of a run, of a report, and of the experiments."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.ticker import LogFormatter

# Told apart by the colour-blind as well (after Okabe and Ito 2008), each at least 3 : 1 against white.
COLOURS = ("#0072b2", "#c44e00", "#008a64", "#b0558b", "#8a6d00", "#3d8fbf", "#7a4fbf", "#8c4a3c")
MARKERS = "osD^vPX*"
INK, MUTED, LINE, PAPER = "#1b1f24", "#59626c", "#d4d8dd", "#ffffff"

_RC: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": mpl.cycler(color=COLOURS),
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,  # names of labels and settings are no formulas
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.dpi": 120,
}

# For each function that makes a picture or saves it, as a decorator.
styled = mpl.rc_context(_RC)  # type: ignore[arg-type]


def log_scale(axes: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, its numbers written out: Matplotlib's own are formulas, which texts here are not."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(1.5, 0.5)))


def looks(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return a colour and a marker for each different name, in the order of their first appearance.

    After eight names the colours begin again, each with another marker than before.
    """
    return {
        name: (COLOURS[i % len(COLOURS)], MARKERS[(i + i // len(COLOURS)) % len(MARKERS)])
        for i, name in enumerate(dict.fromkeys(names))
    }
