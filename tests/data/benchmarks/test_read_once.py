"""Raw files of a benchmark are read once, and anew when they or a setting change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from benchmark_modules import NAMES
from raw import KINDS, benchmark, module, prepared


def overwrite(path: Path, content: bytes) -> None:
    """Other content of the same size, and the same time of change."""
    stat = path.stat()
    assert len(content) == stat.st_size
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("name", NAMES)
def test_a_second_start_does_not_read_again(name: str, tmp_path: Path) -> None:
    """With all raw files spoilt behind its back."""
    first = benchmark(name, tmp_path)
    content = prepared(first)
    for path in (first.folder / "raw").rglob("*.*"):
        if path.is_file():
            overwrite(path, b"\xff" * path.stat().st_size)
    again = benchmark(name, tmp_path)
    assert prepared(again) == content
    assert again.path == first.path


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_raw_file_is_read_anew(name: str, tmp_path: Path) -> None:
    first = benchmark(name, tmp_path)
    first.prepare_data()
    ends = (".xlsx", ".csv", ".jsonl", ".txt", ".dat", ".json")
    raw = next(path for path in (first.folder / "raw").rglob("*.*") if path.suffix in ends)
    stat = raw.stat()
    os.utime(raw, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    second = benchmark(name, tmp_path)
    second.prepare_data()
    assert second.path != first.path
    assert (second.path / "taxonomy.tsv").read_text() == (first.path / "taxonomy.tsv").read_text()


@pytest.mark.parametrize("name", ["wos", "bugs"])
def test_another_min_documents_is_read_anew_and_the_first_found_again(name: str, tmp_path: Path) -> None:
    sizes = {}
    for value in (1, 5, 11, 1):
        data = benchmark(name, tmp_path, min_documents=value)
        data.prepare_data()
        sizes[value] = data.summary["documents"]["all"]
    assert sizes == ({1: 72, 5: 72, 11: 23} if name == "wos" else {1: 39, 5: 36, 11: 36})
    assert len(list(data.folder.glob("prepared-*"))) == 3


@pytest.mark.parametrize("name", ["wos", "bgc"])
def test_the_archive_may_go_once_it_is_extracted(name: str, tmp_path: Path) -> None:
    """To save space: prepared again from what is left, with the same documents."""
    first = benchmark(name, tmp_path)
    content = prepared(first)
    [archived] = (first.folder / "raw").glob("*.zip")
    archived.unlink()
    first.path.rename(tmp_path / "earlier")
    assert prepared(benchmark(name, tmp_path)) == content


@pytest.mark.parametrize("name", NAMES)
def test_the_folder_can_move(name: str, tmp_path: Path) -> None:
    data = benchmark(name, tmp_path)
    data.prepare_data()
    data.folder.rename(tmp_path / "elsewhere")
    moved = module(KINDS[name], tmp_path / "elsewhere", **({"min_documents": 5} if name == "bugs" else {}))
    moved.prepare_data()
    assert moved.path == tmp_path / "elsewhere" / data.path.name


@pytest.mark.parametrize("name", NAMES)
def test_what_is_left_out_is_logged_at_the_first_reading(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="ptmt_lightning.data.benchmarks.base")
    data = benchmark(name, tmp_path)
    data.prepare_data()
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == f"{name}: reading {data.summary['form']}, once"
    assert lines[1:] == [f"{name}: {n} document(s) left out: {why}" for why, n in data.summary["dropped"].items()]
    caplog.clear()
    benchmark(name, tmp_path).prepare_data()
    assert not caplog.records
