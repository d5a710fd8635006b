"""``ptmt data``: download a benchmark, once, and errors in one line."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from book_mirror import ZIP, Mirror, collection, mirrored, ptmt
from warm import warm_ptmt

from ptmt_lightning.cli import main
from ptmt_lightning.data.benchmarks.bgc import BGCDataModule


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    """Serves ``mirror/``, with the archive of a collection of six books."""
    with mirrored(tmp_path / "mirror") as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the benchmark goes; not there yet."""
    return tmp_path / "data" / "bgc"


# ---- download ----


def test_download_then_check(folder: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        ptmt("download", folder, "--mirror", mirror.url)
        assert capsys.readouterr().out == f"bgc: complete, in {folder / 'raw'}\n"
    assert mirror.requests == [f"/{ZIP}"]
    assert (folder / "raw" / ZIP).read_bytes() == collection()
    assert (folder / "raw" / Path(ZIP).stem / "hierarchy.txt").exists()
    assert json.loads((folder / "raw" / "downloads.json").read_text())[ZIP]["url"] == f"{mirror.url}/{ZIP}"
    assert [path.name for path in folder.iterdir()] == ["raw"]


def test_the_default_folder_is_named_after_the_benchmark(
    tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["data", "download", "bgc", "--mirror", mirror.url])
    assert (tmp_path / "data/bgc/raw" / ZIP).exists()


def test_download_from_a_folder(tmp_path: Path, folder: Path) -> None:
    (tmp_path / ZIP).write_bytes(collection())
    ptmt("download", folder, "--mirror", tmp_path.as_uri())
    assert (folder / "raw" / ZIP).read_bytes() == collection()


def test_threads_that_download_at_once_do_so_once(folder: Path, mirror: Mirror) -> None:
    errors = []

    def download() -> None:
        try:
            ptmt("download", folder, "--mirror", mirror.url)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=download) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert mirror.requests == [f"/{ZIP}"]


@pytest.mark.slow
def test_processes_that_download_at_once_do_so_once(folder: Path, mirror: Mirror) -> None:
    command = [*warm_ptmt(), "data", "download", "bgc", "--path", str(folder)]
    command += ["--mirror", mirror.url]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out == f"bgc: complete, in {folder / 'raw'}\n"
    assert mirror.requests == [f"/{ZIP}"]
    assert (folder / "raw" / ZIP).read_bytes() == collection()


# ---- errors ----


def test_a_missing_file_is_an_error_without_a_traceback(folder: Path, mirror: Mirror) -> None:
    message = (
        f"error: {mirror.url}/no/{ZIP}: the host answers 404 File not found. Try again later, or open "
        f"{BGCDataModule.source.page}, fetch {ZIP} by hand, put it into {str(folder / 'raw')!r} and repeat the command"
    )
    for action in ("download", "info"):
        with pytest.raises(SystemExit, match=f"^{re.escape(message)}$") as error:
            ptmt(action, folder, "--mirror", f"{mirror.url}/no")
        assert error.value.__cause__ is None
        assert error.value.__suppress_context__


def test_a_damaged_archive_is_an_error_and_can_be_replaced(folder: Path, mirror: Mirror) -> None:
    raw = folder / "raw"
    raw.mkdir(parents=True)
    (raw / ZIP).write_bytes(collection()[:-10])
    with pytest.raises(SystemExit, match=f"^{re.escape(f'error: {raw / ZIP}: not a whole zip archive')}"):
        ptmt("download", folder)
    (raw / ZIP).unlink()
    ptmt("download", folder, "--mirror", mirror.url)
    assert (raw / Path(ZIP).stem / "hierarchy.txt").exists()


def test_a_file_damaged_after_its_download_is_an_error(folder: Path, mirror: Mirror) -> None:
    ptmt("download", folder, "--mirror", mirror.url)
    (folder / "raw" / ZIP).write_bytes(b"damaged")
    with pytest.raises(SystemExit, match=f"^error: {re.escape(str(folder / 'raw' / ZIP))}: size or SHA-256 differs"):
        ptmt("download", folder, "--mirror", mirror.url)
    assert len(mirror.requests) == 1


def test_a_folder_with_other_files_is_an_error(folder: Path) -> None:
    (folder / "raw").mkdir(parents=True)
    (folder / "raw" / "notes.txt").touch()
    with pytest.raises(SystemExit, match=r"^error: .*/raw: expected blurbgenrecollectionen\.zip, or .*; found notes"):
        ptmt("info", folder)
    assert [path.name for path in folder.iterdir()] == ["raw"]


@pytest.mark.parametrize("action", ["download", "info"])
def test_a_file_in_place_of_the_folder_is_an_error(action: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("text")
    message = f"error: [Errno 20] Not a directory: '{path / 'raw'}'"
    with pytest.raises(SystemExit, match=f"^{re.escape(message)}$") as error:
        ptmt(action, path)
    assert error.value.__suppress_context__
    assert path.read_text() == "text"


@pytest.mark.parametrize("action", ["download", "info"])
def test_a_folder_is_no_mirror_unless_as_an_address(action: str, folder: Path, tmp_path: Path) -> None:
    message = f"error: mirror={str(tmp_path)!r}: expected an address, such as https://host/folder or file:///folder"
    with pytest.raises(SystemExit, match=f"^{re.escape(message)}$"):
        ptmt(action, folder, "--mirror", str(tmp_path))


@pytest.mark.parametrize("action", ["download", "info"])
def test_a_damaged_record_is_an_error(action: str, folder: Path, mirror: Mirror) -> None:
    ptmt("download", folder, "--mirror", mirror.url)
    record = folder / "raw" / "downloads.json"
    record.write_text("{")
    with pytest.raises(SystemExit, match=f"^{re.escape(f'error: {record}: not what a download recorded')}"):
        ptmt(action, folder)
