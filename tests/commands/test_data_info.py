"""``ptmt data info``: a benchmark's figures beside the paper's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import pytest
from book_mirror import ZIP, Mirror, collection, mirrored, ptmt

from ptmt_lightning.data.benchmarks.base import Published
from ptmt_lightning.data.benchmarks.bgc import BGCDataModule
from ptmt_lightning.data.benchmarks.bugs import BugsDataModule
from ptmt_lightning.data.benchmarks.table2 import Comparison, compare

UNEXPLAINED = "differs, no known reason"


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    """Serves ``mirror/``, with the archive of a collection of six books."""
    with mirrored(tmp_path / "mirror") as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the benchmark goes; not there yet."""
    return tmp_path / "data" / "bgc"


def rows_of(table: str) -> dict[str, tuple[str, str, str]]:
    """Measure, and what stands beside it, of a printed table."""
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if line.startswith("│")]
    return {measure: (here, paper, remark) for measure, here, paper, remark in lines}


def put_bugs(folder: Path) -> None:
    """A published form with two products of two components each."""
    (folder / "raw").mkdir(parents=True)
    for part, count in (("train", 40), ("test", 20)):
        labels = [[f"p{i % 2}", f"p{i % 2}_c{i % 4}"] for i in range(count)]
        lines = [json.dumps({"text": f"Report {i} of {part}", "labels": label}) for i, label in enumerate(labels)]
        (folder / "raw" / f"bugs_{part}.jsonl").write_text("\n".join(lines))


def test_info_sets_the_figures_beside_the_papers(
    folder: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    ptmt("info", folder, "--mirror", mirror.url)
    out = capsys.readouterr().out
    assert out.startswith(" ")
    assert "bgc, from the books in" in out
    assert "Table 2" in out
    assert out.endswith("splits: official splits\n")
    characters = len("The keeper, part 0. She lit the lamp 0 times.")
    assert rows_of(out) == {
        "documents": ("6", "91,894", UNEXPLAINED),
        "depth": ("4", "4", ""),
        "labels overall": ("4", "146", UNEXPLAINED),
        "labels a level": ("1-1-1-1", "7-46-77-16", UNEXPLAINED),
        "mean characters": (str(characters), "996", UNEXPLAINED),
        "train": ("3", "58,715", UNEXPLAINED),
        "val": ("2", "14,785", UNEXPLAINED),
        "test": ("1", "18,394", UNEXPLAINED),
    }


def test_info_after_a_download_needs_no_host(folder: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    ptmt("download", folder, "--mirror", mirror.url)
    ptmt("info", folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    ptmt("info", folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    first, second = re.split(r"(?m)(?=^ +bgc, from)", capsys.readouterr().out)[1:]
    assert rows_of(first) == rows_of(second)
    assert len(mirror.requests) == 1


def test_a_path_with_brackets_is_shown_as_it_is(
    tmp_path: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    """Square brackets are markup where tables are drawn."""
    folder = tmp_path / "my [bold] [/data] *"
    ptmt("download", folder, "--mirror", mirror.url)
    assert capsys.readouterr().out == f"bgc: complete, in {folder / 'raw'}\n"
    ptmt("info", folder)
    assert rows_of(capsys.readouterr().out)["documents"][0] == "6"


def test_what_the_table_shows_is_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Form and reasons of documents left out come from the prepared data."""
    put_bugs(tmp_path / "bugs")
    ptmt("info", tmp_path / "bugs", "--cache-dir", str(tmp_path / "cache"), name="bugs")
    [path] = (tmp_path / "bugs").glob("prepared-*/prepared.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"form": "[/x] [red]", "dropped": {"a [/y]": 1234}}))
    capsys.readouterr()
    ptmt("info", tmp_path / "bugs", "--cache-dir", str(tmp_path / "cache"), name="bugs")
    out = capsys.readouterr().out
    assert "bugs, from [/x] [red]" in out
    assert out.endswith("left out: 1,234 document(s), a [/y]\n")


def test_a_changed_archive_changes_the_figures(
    folder: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = folder / "raw"
    for count in (6, 4):
        mirror.folder.joinpath(ZIP).write_bytes(collection(count))
        ptmt("download", folder, "--mirror", mirror.url)
        capsys.readouterr()
        ptmt("info", folder)
        assert rows_of(capsys.readouterr().out)["documents"][0] == str(count)
        (raw / ZIP).unlink()
        (raw / "downloads.json").unlink()
    assert len(mirror.requests) == 2


def test_a_known_deviation_is_explained(folder: Path, mirror: Mirror) -> None:
    """Only for the very figure that is known."""

    class Known(BGCDataModule):
        known_deviations = MappingProxyType({"documents": (6, "a small one"), "val": (3, "of another figure")})

    data = Known(name="bgc", path=str(folder), mirror=mirror.url, batch_size=1, cache_dir=str(folder / "cache"))
    data.prepare_data()
    rows = {row.measure: row for row in compare(data)}
    assert rows["documents"] == Comparison("documents", "6", "91,894", "a small one")
    assert rows["val"].remark == UNEXPLAINED
    assert rows["depth"].remark == ""


def test_a_fold_may_differ_by_a_document(tmp_path: Path) -> None:
    """From the paper's figure, or from the one that is known to differ; by two it is a deviation."""
    put_bugs(tmp_path)

    class Known(BugsDataModule):
        published = Published(60, (2, 4), 20, 33, 100, 22)
        known_deviations = MappingProxyType({"val": (9, "a smaller share")})

    data = Known(name="bugs", path=str(tmp_path), batch_size=1, cache_dir=str(tmp_path / "cache"))
    data.prepare_data()
    rows = {row.measure: row for row in compare(data)}
    assert rows["documents"].remark == ""
    assert rows["train"] == Comparison("train", "32", "33", "folds differ by a document")
    assert rows["val"] == Comparison("val", "8", "100", "a smaller share; folds differ by a document")
    assert rows["test"] == Comparison("test", "20", "22", UNEXPLAINED)


def test_info_of_a_fold_keeps_its_ids_in_the_given_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put_bugs(tmp_path / "bugs")
    cache = tmp_path / "cache"
    for fold in ("0", "4"):
        ptmt("info", tmp_path / "bugs", "--fold", fold, "--cache-dir", str(cache), name="bugs")
        rows = rows_of(capsys.readouterr().out)
        assert rows["documents"][:2] == ("60", "35,050")
        assert rows["depth"] == ("2", "2", "")
        assert [rows[split][0] for split in ("train", "val", "test")] == ["32", "8", "20"]
    names = sorted(path.name for path in cache.iterdir())
    assert [re.sub(r"-[0-9a-f]{12}\.json$", "", name) for name in names] == ["bugs-fold0", "bugs-fold4"]
