"""The data module of a table: converted once, again after a change, and by one process at a time."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pandas as pd
import pytest
from converted import written

from ptmt_lightning.data.tables.module import TableDataModule
from ptmt_lightning.data.tables.options import name_of

ROWS = "text,level1,level2\n" + "".join(f"text {i},A{i % 2},B{i % 4}\n" for i in range(60))


def prepared(table: Path | pd.DataFrame, cache: Path, **settings: object) -> TableDataModule:
    data = TableDataModule(table, cache_dir=str(cache), **settings)
    data.prepare_data()
    return data


def test_a_table_is_converted_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, cache = written(tmp_path, "t.csv", ROWS), tmp_path / "cache"
    with caplog.at_level(logging.INFO):
        first = prepared(path, cache)
        said = caplog.messages.copy()
        before = (first.path / "train.jsonl").stat().st_mtime_ns
        again = prepared(path, cache)
    assert again.path == first.path
    assert (first.path / "train.jsonl").stat().st_mtime_ns == before
    assert caplog.messages == said * 2
    assert said[1] == (
        f"{path}: 60 document(s), 2 / 4 labels a level; train 48, val 6, test 6 (val and test drawn with "
        "dataset.split_seed=0)"
    )
    assert first.name == "t"
    assert first.taxonomy.level_sizes == (2, 4)
    assert len(list(first.texts("test"))) == 6


@pytest.mark.parametrize(
    "setting", [{"split_seed": 1}, {"levels": ["level1"]}, {"test_share": 0.2}, {"text": "level1"}]
)
def test_other_settings_are_another_folder(tmp_path: Path, setting: dict[str, object]) -> None:
    if setting == {"text": "level1"}:
        setting |= {"levels": "level2", "val_share": 0.5, "test_share": 0}
    path, cache = written(tmp_path, "t.csv", ROWS), tmp_path / "cache"
    assert prepared(path, cache).path != prepared(path, cache, **setting).path


def test_another_content_is_another_folder(tmp_path: Path) -> None:
    path, cache = written(tmp_path, "t.csv", ROWS), tmp_path / "cache"
    taxonomy = written(tmp_path, "mine.tsv", "ROOT\tA0\nROOT\tA1\nA0\tB0\nA0\tB2\nA1\tB1\nA1\tB3\n")
    folders = {prepared(path, cache).path, prepared(path, cache, taxonomy=str(taxonomy)).path}
    written(tmp_path, "t.csv", ROWS.replace("text 59", "new"))
    folders.add(prepared(path, cache).path)
    taxonomy.write_text(taxonomy.read_text() + "A1\tB5\n")
    folders.add(prepared(path, cache, taxonomy=str(taxonomy)).path)
    assert len(folders) == 4


def test_a_data_frame_is_data(tmp_path: Path) -> None:
    frame = pd.DataFrame([(f"t{i}", f"b{i}", "A", f"B{i % 2}") for i in range(50)], columns=["title", "body", "x", "y"])
    data = prepared(frame, tmp_path / "cache", text=["title", "body"], levels=["x", "y"], batch_size=8)
    assert data.taxonomy.level_sizes == (1, 2)
    assert set(data.texts("val")) <= {f"t{i}\n\nb{i}" for i in range(50)}
    assert data.batch_size == 8
    other = prepared(frame.assign(x="Z"), tmp_path / "cache", text=["title", "body"], levels=["x", "y"])
    assert other.path != data.path


def test_threads_that_convert_at_once_do_so_once(tmp_path: Path) -> None:
    path, cache = written(tmp_path, "t.csv", ROWS), tmp_path / "cache"
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append((prepared(path, cache).path / "train.jsonl").stat().st_mtime_ns))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len([folder for folder in cache.iterdir() if folder.is_dir()]) == 1


def test_training_needs_a_validation_split(tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", ROWS)
    with pytest.raises(
        ValueError, match=r"t\.csv: no validation split, which training needs; set dataset\.val_share to"
    ):
        prepared(path, tmp_path / "cache", val_share=0)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/tickets.csv", "tickets"), ("tickets.v2.jsonl.gz", "tickets.v2"), ("a/folder", "folder"), (".csv", ".csv"),
        ("hf://owner/name@main", "name"), ("T.CSV", "T"),
    ],
)  # fmt: skip
def test_a_table_is_called_like_its_file(path: str, name: str) -> None:
    assert name_of(path) == name
