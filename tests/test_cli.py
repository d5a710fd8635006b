"""The ``ptmt`` command: download a benchmark, check it, and set its figures beside the paper's."""

from __future__ import annotations

import io
import itertools
import json
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType

import pytest

from ptmt_lightning.cli import main
from ptmt_lightning.data.benchmarks.base import Published
from ptmt_lightning.data.benchmarks.bgc import BGCDataModule
from ptmt_lightning.data.benchmarks.bugs import BugsDataModule
from ptmt_lightning.data.benchmarks.table2 import Row, compare

ZIP = "blurbgenrecollectionen.zip"
TOPICS = ("Fiction", "Sea Tales", "Lighthouses", "Fog")  # a chain of four levels, the depth of the real collection
UNEXPLAINED = "differs, no known reason"


class Mirror(ThreadingHTTPServer):
    """Serves a folder and counts."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self.folder = folder
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(SimpleHTTPRequestHandler):
    server: Mirror

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        super().do_GET()


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    """Serves ``mirror/``, with the archive of a collection of six books."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / ZIP).write_bytes(collection())
    with Mirror(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def collection(count: int = 6) -> bytes:
    """The archive in its official form, always the same bytes: books to train on, but for 2 and 1 at the end."""
    topics = "".join(f"<d{level}>{topic}</d{level}>" for level, topic in enumerate(TOPICS))
    books = [
        f"<book>\n<title>The keeper, part {i}</title>\n<body>She lit the lamp {i} times.</body>\n"
        f"<topics>{topics}</topics>\n</book>\n"
        for i in range(count)
    ]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for part, rows in {"train": slice(0, -3), "dev": slice(-3, -1), "test": slice(-1, None)}.items():
            file.writestr(zipfile.ZipInfo(f"BlurbGenreCollection_EN_{part}.txt"), "".join(books[rows]))
        edges = itertools.pairwise(TOPICS)
        file.writestr(zipfile.ZipInfo("hierarchy.txt"), "".join(f"{parent}\t{child}\n" for parent, child in edges))
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the benchmark goes; not there yet."""
    return tmp_path / "data" / "bgc"


def ptmt(action: str, folder: Path, *more: str, name: str = "bgc") -> None:
    main(["data", action, name, "--path", str(folder), *more])


def rows_of(table: str) -> dict[str, tuple[str, str, str]]:
    """Measure, and what stands beside it, of a printed table."""
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if line.startswith("│")]
    return {measure: (here, paper, remark) for measure, here, paper, remark in lines}


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
    command = [str(Path(sys.executable).with_name("ptmt")), "data", "download", "bgc", "--path", str(folder)]
    command += ["--mirror", mirror.url]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out == f"bgc: complete, in {folder / 'raw'}\n"
    assert mirror.requests == [f"/{ZIP}"]
    assert (folder / "raw" / ZIP).read_bytes() == collection()


# ---- info ----


def test_info_sets_the_figures_beside_the_papers(
    folder: Path, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    ptmt("info", folder, "--mirror", mirror.url)
    out = capsys.readouterr().out
    assert out.startswith(" ")
    assert "bgc, from the books in" in out
    assert "Table 2" in out
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
    assert rows["documents"] == Row("documents", "6", "91,894", "a small one")
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
    assert rows["train"] == Row("train", "32", "33", "folds differ by a document")
    assert rows["val"] == Row("val", "8", "100", "a smaller share; folds differ by a document")
    assert rows["test"] == Row("test", "20", "22", UNEXPLAINED)


def put_bugs(folder: Path) -> None:
    """A published form with two products of two components each."""
    (folder / "raw").mkdir(parents=True)
    for part, count in (("train", 40), ("test", 20)):
        labels = [[f"p{i % 2}", f"p{i % 2}_c{i % 4}"] for i in range(count)]
        lines = [json.dumps({"text": f"Report {i} of {part}", "labels": label}) for i, label in enumerate(labels)]
        (folder / "raw" / f"bugs_{part}.jsonl").write_text("\n".join(lines))


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "download", "imdb"], "argument name: invalid choice: 'imdb' (choose from"),
        (["data", "download"], "the following arguments are required: name"),
        (["data", "upload", "bgc"], "argument ACTION: invalid choice: 'upload' (choose from"),
        (["data"], "the following arguments are required: ACTION"),
        ([], "the following arguments are required: COMMAND"),
        (["train"], "argument COMMAND: invalid choice: 'train' (choose from"),
        (["data", "info", "bugs", "--fold", "6"], "argument --fold: invalid choice: 6 (choose from"),
        (["data", "info", "bugs", "--fold", "one"], "argument --fold: invalid int value: 'one'"),
        (["data", "download", "bugs", "--fold", "1"], "unrecognized arguments: --fold 1"),
    ],
    ids=" ".join,
)
def test_a_wrong_command_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["data"], ["data", "download"], ["data", "info"]], ids=" ".join)
def test_help_is_there_for_each_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main([*arguments, "--help"])
    assert error.value.code == 0
    assert capsys.readouterr().out.startswith(" ".join(["usage: ptmt", *arguments]))
