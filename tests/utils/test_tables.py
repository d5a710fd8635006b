"""CSV that no spreadsheet takes for formulas, and that is read back as it was."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ptmt_lightning.metrics import HierarchicalMetrics
from ptmt_lightning.run_folder.figures import draw
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.run_folder.tables import write_tables
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils.tables import csv_text, harmless, plain, read_csv

FORMULAS = ["=1+1", "+49", "-x", "@A", "\tx", "\rx", "\uff1d1", "'=1", "''-"]


@given(st.text(max_size=5))
@example("'")
@example("''x")
def test_a_cell_comes_back(cell: str) -> None:
    assert plain(harmless(cell)) == cell
    assert not harmless(cell).startswith(tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"))


@pytest.mark.parametrize("cell", FORMULAS)
def test_a_formula_gets_an_apostrophe(cell: str) -> None:
    assert harmless(cell) == f"'{cell}"


def test_numbers_and_truth_values_stay(tmp_path: Path) -> None:
    numbers = {"f1": [-0.5, 1e-9, None], "seen": [True, False, True], "n": [-1, 2, 3]}
    table = pd.DataFrame({"=label": FORMULAS[:3], **numbers})
    (tmp_path / "table.csv").write_text(csv_text(table), encoding="utf-8")
    [heading, *rows] = csv.reader((tmp_path / "table.csv").open(newline="", encoding="utf-8"))
    assert heading == ["'=label", "f1", "seen", "n"]
    assert [row[0] for row in rows] == ["'=1+1", "'+49", "'-x"]
    assert [row[1] for row in rows] == ["-0.5", "1e-09", ""]
    pd.testing.assert_frame_equal(read_csv(tmp_path / "table.csv"), table)


def test_the_tables_of_a_run_neutralise_labels_and_are_drawn_with_their_names(tmp_path: Path) -> None:
    taxonomy = Taxonomy([("ROOT", "=A"), ("ROOT", "@B"), ("=A", "-C")])
    metrics = HierarchicalMetrics(taxonomy)
    folder = RunFolder(tmp_path)
    write_tables(folder, taxonomy, metrics.compute())
    text = folder.per_label.read_text(encoding="utf-8")
    assert all(f"'{name}" in text for name in taxonomy.names)
    assert list(read_csv(folder.per_label, keep_default_na=False)["label"]) == list(taxonomy.names)
    folder.reliability.unlink()  # of no document
    assert draw(folder)
