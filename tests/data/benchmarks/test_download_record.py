"""What downloads leave in a folder: their record, something to go on with, and raw files."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from downloads import CONTENT, OTHER, assert_whole, fetch, listing, put_part, serving_words, source
from http_server import Host

from ptmt_lightning.data.benchmarks.download import check_downloads, is_unfinished, raw_files


@pytest.fixture
def host() -> Iterator[Host]:
    """Serves ``words.bin``; gone after the test."""
    with serving_words() as host:
        yield host


# ---- the record ----


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "[1]", "null", '"text"', '{"words.bin": 1}', '{"words.bin": {"url": "u", "bytes": 1}}', b"\xff"],
)
def test_a_damaged_record_is_named(content: str | bytes, host: Host, tmp_path: Path) -> None:
    path = tmp_path / "downloads.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    pattern = f"^{re.escape(f'{path}: not what a download recorded (')}.*; correct it or delete it$"
    for check in (
        check_downloads,
        lambda folder: fetch(host, folder),
        lambda folder: is_unfinished(source(host), folder),
    ):
        with pytest.raises(ValueError, match=pattern):
            check(tmp_path)
    assert host.requests == []
    path.unlink()
    fetch(host, tmp_path)
    assert_whole(tmp_path)


@pytest.mark.parametrize("damaged", [CONTENT[:-1], CONTENT[:-1] + b"\0"], ids=["shorter", "as long"])
def test_a_file_that_was_damaged_here_is_an_error(damaged: bytes, host: Host, tmp_path: Path) -> None:
    fetch(host, tmp_path)
    (tmp_path / "words.bin").write_bytes(damaged)
    message = (
        f"{tmp_path / 'words.bin'}: size or SHA-256 differs from those at its download, recorded in "
        f"{tmp_path / 'downloads.json'}; delete the file to fetch it again"
    )
    for check in (check_downloads, lambda folder: fetch(host, folder)):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            check(tmp_path)
    (tmp_path / "words.bin").unlink()
    fetch(host, tmp_path)
    assert_whole(tmp_path)


def test_files_without_a_record_and_records_without_a_file_pass_the_check(host: Host, tmp_path: Path) -> None:
    fetch(host, tmp_path)
    (tmp_path / "words.bin").unlink()
    (tmp_path / "by_hand.bin").write_bytes(OTHER)
    check_downloads(tmp_path)
    check_downloads(tmp_path / "missing")


def test_another_file_at_the_second_download_is_refused_until_accepted(host: Host, tmp_path: Path) -> None:
    fetch(host, tmp_path)
    (tmp_path / "words.bin").unlink()
    host.files["words.bin"] = OTHER
    now, then = (hashlib.sha256(content).hexdigest() for content in (OTHER, CONTENT))
    message = (
        f"{host.url}/words.bin: SHA-256 {now} of 2500 bytes, expected {then} of 3000, as at the first "
        "download; the host serves another file now. To accept it, delete 'words.bin' from "
        f"{tmp_path / 'downloads.json'}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fetch(host, tmp_path)
    assert listing(tmp_path) == {"downloads.json"}
    (tmp_path / "downloads.json").write_text("{}")
    fetch(host, tmp_path)
    assert_whole(tmp_path, OTHER)


# ---- whether there is something to go on with ----


def test_unfinished_is_what_began_and_lacks_a_file(host: Host, tmp_path: Path) -> None:
    both = source(host, "words.bin", "more.bin")
    assert not is_unfinished(both, tmp_path / "missing")
    assert not is_unfinished(both, tmp_path)
    fetch(host, tmp_path)
    assert is_unfinished(both, tmp_path)
    host.files["more.bin"] = OTHER
    fetch(host, tmp_path, "words.bin", "more.bin")
    assert not is_unfinished(both, tmp_path)


def test_files_put_there_by_hand_are_no_unfinished_download(host: Host, tmp_path: Path) -> None:
    (tmp_path / "words.csv").touch()
    assert not is_unfinished(source(host), tmp_path)


def test_a_part_alone_is_no_unfinished_download(host: Host, tmp_path: Path) -> None:
    """It may lie beside files that were put there by hand since."""
    put_part(f"{host.url}/words.bin", tmp_path, CONTENT[:1200], CONTENT)
    assert not is_unfinished(source(host), tmp_path)


def test_a_file_put_there_by_hand_finishes_a_download(host: Host, tmp_path: Path) -> None:
    host.files["more.bin"] = OTHER
    both = source(host, "words.bin", "more.bin")
    fetch(host, tmp_path)
    (tmp_path / "more.bin").write_bytes(OTHER)
    assert not is_unfinished(both, tmp_path)


def test_a_recorded_file_deleted_by_hand_is_not_unfinished(host: Host, tmp_path: Path) -> None:
    fetch(host, tmp_path)
    (tmp_path / "words.bin").unlink()
    assert not is_unfinished(source(host), tmp_path)


# ---- raw files ----


def test_raw_files_are_all_but_our_own_notes_and_what_is_unfinished(tmp_path: Path) -> None:
    wanted = ["b.csv", "sub/a.txt", "sub/deep/c.etags", "words.zip"]
    ours = [
        ".lock", "downloads.json", "words.zip.part", "words.zip.part.etag", "words.x7_.tmp/a.txt", "sub/.hidden",
        "words/.archive", ".git/config", ".downloads.json.k2",
    ]  # fmt: skip
    for name in wanted + ours:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert raw_files(tmp_path) == [tmp_path / name for name in wanted]
    assert raw_files(tmp_path / "missing") == []


def test_raw_files_are_found_below_a_hidden_folder(tmp_path: Path) -> None:
    folder = tmp_path / ".data" / "old.tmp" / "raw"
    folder.mkdir(parents=True)
    (folder / "a").touch()
    assert raw_files(folder) == [folder / "a"]
