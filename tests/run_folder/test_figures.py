"""Pictures of a run: what they show, from which files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from ptmt_lightning.metrics import calibration_error
from ptmt_lightning.run_folder import figures
from ptmt_lightning.run_folder.paths import RunFolder

METRICS = pd.DataFrame(
    {
        "step": [9, 19, 20, 21],
        "train/loss": [4.0, 2.0, None, None],
        "train/label": [3.0, 1.0, None, None],
        "val/h_f1_macro": [None, None, 0.5, None],
        "test/h_f1_macro": [None, None, None, 0.6],
    }
)
LABELS = pd.DataFrame(
    {
        "label": ["A", "NA", "a1", "never"],
        "level": [1, 1, 2, 2],
        "support": [10, 5, 3, 0],
        "predicted": [9, 6, 2, 0],
        "f1": [0.8, 0.6, 0.4, 0.0],
    }
)
BINS = pd.DataFrame({"low": [0, 0.5], "high": [0.5, 1], "probability": [0.1, 0.8], "labels": [30, 10], "true": [6, 8]})
EMBEDDINGS = pd.DataFrame(
    {
        "label": ["A", "NA", "a1", "n1"],
        "level": [1, 1, 2, 2],
        "parent": ["ROOT", "ROOT", "A", "NA"],
        "x": range(4),
        "y": range(4),
    }
)


def test_learning_curves_show_what_the_run_logged() -> None:
    left, right = figures.learning_curves(METRICS).axes
    assert {line.get_label(): line.get_ydata().tolist() for line in left.lines} == {"loss": [4, 2], "label": [3, 1]}
    assert {line.get_label(): line.get_xdata().tolist() for line in right.lines} == {"h_f1_macro": [20]}


def test_label_f1_leaves_out_labels_that_do_not_occur() -> None:
    left, right = figures.label_f1(LABELS).axes
    assert not left.patches  # dots: nothing that has to start at zero
    [quartiles], [means] = left.collections, left.lines
    assert means.get_ydata() == pytest.approx([0.7, 0.4])
    assert [segment[:, 1].tolist() for segment in quartiles.get_segments()] == [
        pytest.approx([0.65, 0.75]), pytest.approx([0.4, 0.4])
    ]  # fmt: skip
    assert [collection.get_offsets().tolist() for collection in right.collections] == [
        [[10, 0.8], [5, 0.6]],
        [[3, 0.4]],
    ]


def test_reliability_shows_the_share_that_is_true() -> None:
    figure = figures.reliability(BINS)
    upper, lower = figure.axes
    np.testing.assert_allclose(upper.lines[1].get_ydata(), [0.2, 0.8])
    assert not lower.patches  # a bar on a logarithmic axis would start above zero
    assert lower.lines[0].get_ydata().tolist() == [30, 10]
    assert calibration_error(BINS.to_dict("records")) == pytest.approx((30 * 0.1 + 10 * 0) / 40)


def test_the_map_shows_the_levels_below_the_first_by_parent() -> None:
    (axes,) = figures.label_map(EMBEDDINGS).axes
    points = axes.collections[0]
    assert points.get_offsets().tolist() == [[2, 2], [3, 3]]
    assert len({tuple(colour) for colour in points.get_facecolors()}) == 2
    assert [text.get_text() for text in axes.texts] == ["a1", "n1"]
    odd = EMBEDDINGS.assign(label="cost $a_$ b", parent=["_x", "$\\foo$", "_x", "$\\foo$"])
    figure = figures.label_map(odd)
    figure.savefig(io.BytesIO())  # names are no formulas
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [" _x", " $\\foo$"]
    flat = EMBEDDINGS[EMBEDDINGS["level"] == 1]
    assert len(figures.label_map(flat).axes[0].texts) == 2


def test_draw_makes_a_picture_of_each_file_that_is_there(tmp_path: Path) -> None:
    assert figures.draw(RunFolder(tmp_path)) == []
    METRICS.to_csv(tmp_path / "metrics.csv", index=False)
    LABELS.to_csv(tmp_path / "per_label.csv", index=False)
    EMBEDDINGS.to_csv(tmp_path / "label_embeddings.csv", index=False)
    written = figures.draw(RunFolder(tmp_path))
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "figures/learning_curves.png", "figures/label_f1.png", "figures/label_map.png"
    ]  # fmt: skip
    assert all(imread(path).std() > 0 for path in written)
    assert len(list((tmp_path / "figures").iterdir())) == 3
