"""Full-size stand-ins of the benchmarks, and slices of the real ones, from raw files to Table 2's figures."""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path

import pytest
from conftest import ROOT_DIR, SHARED

from ptmt_lightning.commands.data import benchmark_class
from ptmt_lightning.data.benchmarks.base import BenchmarkDataModule
from ptmt_lightning.data.benchmarks.table2 import compare
from ptmt_lightning.taxonomy import Taxonomy

TAXONOMIES = SHARED / "taxonomies"

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the real taxonomies and slices are not here")


def prepared(name: str, folder: Path) -> BenchmarkDataModule:
    data = benchmark_class(name)(name=name, path=str(folder), batch_size=1, cache_dir=str(folder / "cache"))
    data.prepare_data()
    return data


@pytest.mark.slow
@pytest.mark.parametrize("name", ["amazon", "bgc", "bugs", "wos"])
def test_a_full_size_stand_in_shows_the_figures_of_table_2(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT_DIR / "experiments" / "data"))
    monkeypatch.setattr(
        sys, "argv", ["", str(tmp_path), name, "--taxonomies", str(TAXONOMIES), "--mean-characters", "60"]
    )
    import standins

    standins.main()
    data = prepared(name, tmp_path / name)
    deviations = {row.measure: row.remark for row in compare(data) if row.remark}
    deviations.pop("mean characters")  # these texts are short
    assert deviations == (
        {"train": "the paper's 31,306 still contain the 6,262 for validation"} if name == "wos" else {}
    )
    assert sorted(data.taxonomy.edges) == sorted(Taxonomy.from_tsv(TAXONOMIES / f"{name}.tsv").edges)


def test_a_slice_of_the_real_bugs_goes_through(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "raw").mkdir()
    shutil.copy(SHARED / "data" / "linux_bugs" / "linux_bugs.csv.gz", tmp_path / "raw")
    with caplog.at_level(logging.WARNING):
        data = prepared("bugs", tmp_path)
    assert caplog.records == []
    assert data.taxonomy.names == (
        "Drivers", "File-System", "Drivers_Bluetooth", "Drivers_USB", "File-System_XFS", "File-System_ext4"
    )  # fmt: skip
    assert sum(data.split_sizes().values()) + sum(data.summary["dropped"].values()) == 1022


def test_a_slice_of_the_real_abstracts_goes_through(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "raw").mkdir()
    shutil.copy(SHARED / "data" / "wos_abstracts" / "all.jsonl.gz", tmp_path / "raw")
    with caplog.at_level(logging.WARNING):
        data = prepared("wos", tmp_path)
    assert caplog.records == []
    assert data.taxonomy.level_sizes == (7,)
    assert data.split_sizes() == {"train": 112, "val": 28, "test": 70}
