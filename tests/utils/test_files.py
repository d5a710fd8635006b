"""Files and folders that are either whole or absent."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ptmt_lightning.utils.files import new_folder, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- files ----


def test_a_text_is_written_whole_and_alone(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "Straße\n日本\n")
    assert (tmp_path / "a.txt").read_bytes() == "Straße\n日本\n".encode()
    assert names(tmp_path) == ["a.txt"]


def test_a_text_replaces_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a longer text than the new one")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_an_error_leaves_the_older_text(tmp_path: Path) -> None:
    """Half of a surrogate pair cannot be encoded: the error comes in the middle of writing."""
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a.txt", "x" * 100_000 + "\ud83d")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_an_error_at_the_last_step_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "folder", "text")
    assert names(tmp_path) == ["folder"]


@pytest.fixture(params=[0o022, 0o077, 0o002], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_who_may_read_is_as_the_umask_says(umask: int, tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "text")
    with new_folder(tmp_path / "new"):
        pass
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o777 & ~umask


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path, texts = tmp_path / "a.txt", {letter * 50_000 for letter in "xyz"}
    write_text(path, "x" * 50_000)

    def write() -> None:
        for _ in range(10):
            for text in sorted(texts):
                write_text(path, text)

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    seen = {path.read_text()}
    while any(writer.is_alive() for writer in writers):
        seen.add(path.read_text())
    assert seen <= texts
    assert names(tmp_path) == ["a.txt"]


def test_json_is_readable_and_ends_with_a_new_line(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": ["é"]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text == '{\n  "b": 1,\n  "a": [\n    "é"\n  ]\n}\n'
    assert json.loads(text) == {"b": 1, "a": ["é"]}


def test_what_json_cannot_say_leaves_the_older_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "a.json", {"a": tmp_path})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert names(tmp_path) == ["a.json"]


# ---- folders ----


def test_a_folder_gets_its_name_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "new"
    with new_folder(path) as folder:
        assert folder.parent == tmp_path
        assert folder.name.startswith("new.")
        assert folder.suffix == ".tmp"
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("text")
        assert not path.exists()
    assert (path / "sub" / "a").read_text() == "text"
    assert names(tmp_path) == ["new"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_no_folder(error: type[BaseException], tmp_path: Path) -> None:
    def write_half() -> None:
        with new_folder(tmp_path / "new") as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / "a").write_text("text")
            raise error("stop")

    with pytest.raises(error, match="stop"):
        write_half()
    assert names(tmp_path) == []


def test_a_folder_that_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    def write_slowly() -> None:
        with new_folder(tmp_path / "new") as folder:
            (folder / "a").write_text("mine")
            (tmp_path / "new").mkdir()
            (tmp_path / "new" / "a").write_text("theirs")

    with pytest.raises(OSError, match="not empty"):
        write_slowly()
    assert names(tmp_path) == ["new"]
    assert (tmp_path / "new" / "a").read_text() == "theirs"


def test_two_writers_have_folders_of_their_own(tmp_path: Path) -> None:
    with new_folder(tmp_path / "a") as first, new_folder(tmp_path / "b") as second:
        assert first != second
    with new_folder(tmp_path / "c") as first, pytest.raises(ValueError, match="stop"), new_folder(tmp_path / "c"):
        raise ValueError("stop")
    assert names(tmp_path) == ["a", "b", "c"]


def test_what_killed_processes_left_goes_with_the_next_one_of_that_name(tmp_path: Path) -> None:
    for name in ("a.x1.tmp", "a.x2.tmp", "b.x1.tmp", "a.txt"):
        (tmp_path / name).mkdir()
    with new_folder(tmp_path / "a") as folder:
        assert names(tmp_path) == sorted([folder.name, "a.txt", "b.x1.tmp"])
    with new_folder(tmp_path / "c"):
        pass
    assert names(tmp_path) == ["a", "a.txt", "b.x1.tmp", "c"]


def test_a_folder_that_is_being_filled_stays_until_its_process_is_killed(tmp_path: Path) -> None:
    ready, writer = os.pipe()
    process = os.fork()
    if not process:
        with new_folder(tmp_path / "a") as folder:
            os.write(writer, folder.name.encode())
            signal.pause()
    name = os.read(ready, 100).decode()
    try:
        with new_folder(tmp_path / "a") as mine:
            assert names(tmp_path) == sorted([name, mine.name])
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    shutil.rmtree(tmp_path / "a")
    with new_folder(tmp_path / "a"):
        pass
    assert names(tmp_path) == ["a"]
