"""Where predictions go wrong: counted by hand, and shown on the page."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from conftest import TOY_EDGES
from run_folders import write_predictions, write_run

from ptmt_lightning.cli import main
from ptmt_lightning.reporting.errors import Confusion, Level, errors_of
from ptmt_lightning.run_folder.finished import find_runs

DOCUMENTS = {
    "right": ([["A", "AA"]], [["A", "AA"]]),
    "sibling": ([["A", "AA"]], [["A", "AB"]]),
    "sibling again": ([["A", "AA"]], [["A", "AB"]]),
    "other top": ([["B", "BA"]], [["C", "CA"]]),
    "ends early": ([["B", "BA"]], [["B"]]),
    "nothing": ([["C"]], []),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_run(tmp_path / "runs/one", 0.5)
    write_predictions(folder, TOY_EDGES, DOCUMENTS)
    rows = [("x", "<b>bad</b> text", "A > AA", "0.1", "A > AB", "0.9", "0.0")]
    columns = ["id", "text", "true", "true_probability", "predicted", "probability", "f1"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "mistakes.csv", index=False)
    return folder


def test_errors_are_counted(folder: Path) -> None:
    [run], _ = find_runs([folder])
    errors = errors_of(run)
    assert errors is not None
    assert errors.confusions == [Confusion("A", "AA", "AB", 2), Confusion("", "B", "C", 1)]
    assert errors.levels == [Level(1, 6, 2), Level(2, 4, 3)]
    assert errors.documents == [{"text": "<b>bad</b> text", "true": "A > AA", "predicted": "A > AB"}]


def test_the_page_shows_them(folder: Path, tmp_path: Path) -> None:
    main(["report", str(folder), "--html", str(tmp_path / "page.html")])
    page = (tmp_path / "page.html").read_text()
    assert "Where the best one goes wrong (one)" in page
    assert '<tr><td>A</td><th scope="row">AA</th><td>AB</td><td>2</td></tr>' in page
    assert '<tr><th scope="row">2</th><td>4</td><td>3</td><td>75.0 %</td></tr>' in page
    assert "&lt;b&gt;bad&lt;/b&gt; text" in page


@pytest.mark.parametrize("broken", ["not json\n", '{"labels": 3}\n'])
def test_predictions_that_can_not_be_read_are_told(folder: Path, broken: str, caplog: pytest.LogCaptureFixture) -> None:
    [run], _ = find_runs([folder])
    (folder / "mistakes.csv").write_text("a,b\n")
    found = errors_of(run)
    assert found is not None
    assert found.documents == []
    (folder / "predictions.jsonl").write_text(broken)
    assert errors_of(run) is None
    assert caplog.text.count("is broken") == 2
    (folder / "predictions.jsonl").unlink()
    assert errors_of(run) is None
