"""A picture of a data set: how often its labels occur, and how long its texts are."""

from __future__ import annotations

import secrets
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ptmt_lightning.data.description import Description

_BINS = 60


def draw(description: Description, path: Path, title: str) -> None:
    """Write the picture of a description as a PNG file."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        figure(description, title).savefig(temporary, format="png", dpi=120)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def figure(description: Description, title: str) -> Figure:
    """Return the picture: documents of each label by rank, level by level, and the share of texts of each length."""
    drawn = Figure(figsize=(11, 4), layout="constrained")
    drawn.suptitle(title, parse_math=False)
    left, right = drawn.subplots(1, 2)
    split, figures = next(iter(description.splits.items()))
    for level, nodes in enumerate(description.taxonomy.level_slices, start=1):
        counts = np.sort(figures.counts[nodes])[::-1]
        counts = counts[counts > 0]
        left.plot(np.arange(1, len(counts) + 1), counts, marker=".", linewidth=0.8, label=f"level {level}")
    left.set(xlabel="rank of the label", ylabel=f"documents of {split}", xscale="log", yscale="log")
    longest = max(int(found.lengths.max()) for found in description.splits.values())
    edges = np.unique(np.geomspace(1, max(longest, 2) + 1, _BINS).round())
    for name, found in description.splits.items():
        counts, _ = np.histogram(found.lengths, edges)
        right.plot(edges[:-1], counts / len(found.lengths), marker=".", linewidth=0.8, label=name)
    right.axvline(description.max_length, color="grey", linestyle=":", label=f"max_length {description.max_length}")
    right.set(xlabel=f"{description.unit} of a text", ylabel="share of the texts", xscale="log")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    return drawn
