"""Downloads from a good host, from a mirror and from a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from downloads import CONTENT, OTHER, PAGE, assert_whole, by_hand, fetch, listing, serving_words
from http_server import Answer, Host

from ptmt_lightning.data.benchmarks.download import Source, download


@pytest.fixture
def host() -> Iterator[Host]:
    """Serves ``words.bin``; gone after the test."""
    with serving_words() as host:
        yield host


def test_files_come_whole_and_are_recorded(host: Host, tmp_path: Path) -> None:
    host.files["more.bin"] = b""
    fetch(host, tmp_path / "new" / "raw", "words.bin", "more.bin")
    folder = tmp_path / "new" / "raw"
    assert (folder / "words.bin").read_bytes() == CONTENT
    assert (folder / "more.bin").read_bytes() == b""
    assert listing(folder) == {"words.bin", "more.bin", "downloads.json"}
    assert json.loads((folder / "downloads.json").read_text()) == {
        name: {"url": f"{host.url}/{name}", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in host.files.items()
    }
    assert host.ranges() == [None, None]
    assert {str(request.user_agent).split("/")[0] for request in host.requests} == {"ptmt_lightning"}


def test_what_is_there_is_not_fetched_again(host: Host, tmp_path: Path) -> None:
    host.files["more.bin"] = OTHER
    fetch(host, tmp_path)
    fetch(host, tmp_path, "words.bin", "more.bin")
    fetch(host, tmp_path, "words.bin", "more.bin")
    assert [request.path for request in host.requests] == ["words.bin", "more.bin"]


def test_a_file_put_there_by_hand_is_not_fetched(host: Host, tmp_path: Path) -> None:
    (tmp_path / "words.bin").write_bytes(b"from a colleague")
    fetch(host, tmp_path)
    assert host.requests == []
    assert (tmp_path / "words.bin").read_bytes() == b"from a colleague"


def test_a_file_of_unannounced_length_comes_whole(host: Host, tmp_path: Path) -> None:
    host.otherwise = Answer(announced=False)
    fetch(host, tmp_path)
    assert_whole(tmp_path)


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_mirror_is_asked_for_the_same_names(slash: str, host: Host, tmp_path: Path) -> None:
    host.files["copies/words.bin"] = OTHER
    fetch(host, tmp_path, mirror=f"{host.url}/copies{slash}")
    assert_whole(tmp_path, OTHER)
    assert [request.path for request in host.requests] == ["copies/words.bin"]
    record = json.loads((tmp_path / "downloads.json").read_text())
    assert record["words.bin"]["url"] == f"{host.url}/copies/words.bin"


# ---- mirrors that are folders ----


def test_a_folder_is_a_mirror(tmp_path: Path) -> None:
    folder = tmp_path / "my copies"
    folder.mkdir()
    (folder / "words.bin").write_bytes(CONTENT)
    somewhere = Source(PAGE, {"words.bin": "http://host.invalid/words.bin"})
    download(somewhere, tmp_path / "raw", mirror=folder.as_uri())
    assert_whole(tmp_path / "raw")
    assert listing(folder) == {"words.bin"}


def test_a_file_missing_from_a_folder_is_an_error_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    somewhere = Source(PAGE, {"words.bin": "http://host.invalid/words.bin"})
    mirror = (tmp_path / "copies").as_uri()
    problem = f"[Errno 2] No such file or directory: '{tmp_path}/copies/words.bin'"
    with pytest.raises(ValueError, match=by_hand(f"{mirror}/words.bin", problem, tmp_path / "raw")):
        download(somewhere, tmp_path / "raw", mirror=mirror, backoff=0.01)
    assert caplog.messages == []
