"""Downloads from a host that misbehaves, archives that are damaged or hostile, and when a benchmark downloads."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import random
import re
import socket
import ssl
import stat
import threading
import urllib.error
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from conftest import TOY_DOCUMENTS
from http_server import Answer, Host, serving

from ptmt_lightning.data.benchmarks import archives
from ptmt_lightning.data.benchmarks import download as module
from ptmt_lightning.data.benchmarks.archives import extract_archives
from ptmt_lightning.data.benchmarks.base import BenchmarkDataModule, Raw
from ptmt_lightning.data.benchmarks.download import Source, check_downloads, download, is_unfinished, raw_files
from ptmt_lightning.data.benchmarks.prepared import read_jsonl

PAGE = "https://page.example/words"
CONTENT = random.Random(0).randbytes(3000)
OTHER = random.Random(1).randbytes(2500)
DATE = "Mon, 05 Feb 2024 10:00:00 GMT"


@pytest.fixture
def host() -> Iterator[Host]:
    """Serves ``words.bin``; gone after the test."""
    with serving() as host:
        host.files["words.bin"] = CONTENT
        yield host


def source(host: Host, *names: str) -> Source:
    return Source(PAGE, {name: f"{host.url}/{name}" for name in names or ("words.bin",)})


def fetch(host: Host, folder: Path, *names: str, mirror: str | None = None) -> None:
    download(source(host, *names), folder, mirror=mirror, backoff=0.01)


def by_hand(url: str, problem: str, folder: Path, name: str = "words.bin") -> str:
    """The whole message of a file that did not come, as a pattern."""
    message = f"{url}: {problem}. Try again later, or open {PAGE}, fetch {name} by hand, put it into {str(folder)!r} "
    return f"^{re.escape(message + 'and repeat the command')}$"


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


def put_part(url: str, folder: Path, content: bytes, of: bytes) -> None:
    """What a download from ``url`` leaves that broke off; ``content`` is the beginning ``of`` a file."""
    part = folder / f"{url.rpartition('/')[2]}.part"
    folder.mkdir(parents=True, exist_ok=True)
    part.write_bytes(content)
    part.with_name(f"{part.name}.etag").write_text(f"{url}\n{etag(of)}")


def assert_whole(folder: Path, content: bytes = CONTENT) -> None:
    """The file and its record are right, and nothing else is there."""
    assert (folder / "words.bin").read_bytes() == content
    assert listing(folder) == {"words.bin", "downloads.json"}
    record = json.loads((folder / "downloads.json").read_text())["words.bin"]
    assert (record["bytes"], record["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


# ---- a good host ----


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


# ---- connections that break ----


def test_a_download_goes_on_where_it_broke_off(host: Host, tmp_path: Path) -> None:
    host.script = [Answer(stop_after=1200)]
    fetch(host, tmp_path)
    assert_whole(tmp_path)
    assert host.ranges() == [None, "bytes=1200-"]
    assert host.requests[1].if_range == etag(CONTENT)


def test_it_may_break_off_often_as_long_as_bytes_come(
    host: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    host.script = [Answer(stop_after=300)] * 9
    fetch(host, tmp_path)
    assert_whole(tmp_path)
    assert host.ranges() == [None, *(f"bytes={300 * i}-" for i in range(1, 10))]
    assert caplog.messages[1] == "words.bin: the connection ended after 600 of 3000 bytes; trying again"


def test_a_file_of_several_blocks_goes_on_within_a_block(host: Host, tmp_path: Path) -> None:
    host.files["words.bin"] = content = random.Random(2).randbytes((5 << 20) // 2)
    host.script = [Answer(stop_after=3 << 19), Answer(stop_after=5)]
    fetch(host, tmp_path)
    assert_whole(tmp_path, content)
    assert host.ranges() == [None, f"bytes={3 << 19}-", f"bytes={(3 << 19) + 5}-"]


def test_a_reset_connection_is_tried_again(host: Host, tmp_path: Path) -> None:
    host.script = [Answer(stop_after=0, reset=True)]
    fetch(host, tmp_path)
    assert_whole(tmp_path)
    assert host.ranges() == [None, None]


def test_bytes_that_came_before_a_reset_are_kept(host: Host, tmp_path: Path) -> None:
    host.script = [Answer(stop_after=300, reset=True), Answer(stop_after=500, reset=True)]
    fetch(host, tmp_path)
    assert_whole(tmp_path)
    assert host.ranges() == [None, "bytes=300-", "bytes=800-"]


def test_five_attempts_without_a_new_byte_are_enough(host: Host, tmp_path: Path) -> None:
    host.script = [Answer(stop_after=1000), Answer(stop_after=0), Answer(stop_after=0), Answer(stop_after=200)]
    host.script += [Answer(stop_after=0)] * 50
    problem = "the connection ended after 1200 of 3000 bytes"
    with pytest.raises(ValueError, match=by_hand(f"{host.url}/words.bin", problem, tmp_path)):
        fetch(host, tmp_path)
    assert host.ranges() == [None, *["bytes=1000-"] * 3, *["bytes=1200-"] * 4]


def test_a_host_that_ignores_ranges_and_always_breaks_off_is_given_up(host: Host, tmp_path: Path) -> None:
    host.script = [Answer(ranges=False, stop_after=1200)] * 50
    problem = "the connection ended after 1200 of 3000 bytes"
    with pytest.raises(ValueError, match=by_hand(f"{host.url}/words.bin", problem, tmp_path)):
        fetch(host, tmp_path)
    assert len(host.requests) == 5


def test_a_host_whose_file_always_changes_is_given_up(host: Host, tmp_path: Path) -> None:
    """Bytes come each time, yet never further than before."""
    host.script = [
        Answer(content=random.Random(i).randbytes(3000), stop_after=1200, if_range=bool(i % 2)) for i in range(50)
    ]
    with pytest.raises(ValueError, match=f"^{re.escape(f'{host.url}/words.bin: the ')}.*Try again later, or open"):
        fetch(host, tmp_path)
    assert len(host.requests) < 10


def test_the_next_call_uses_what_came(host: Host, tmp_path: Path) -> None:
    host.script = [Answer(stop_after=1200), *[Answer(stop_after=0)] * 4]
    with pytest.raises(ValueError, match="ended after 1200 of 3000 bytes"):
        fetch(host, tmp_path)
    assert listing(tmp_path) == {"words.bin.part", "words.bin.part.etag"}
    assert (tmp_path / "words.bin.part").read_bytes() == CONTENT[:1200]
    host.requests.clear()
    fetch(host, tmp_path)
    assert_whole(tmp_path)
    assert host.ranges() == ["bytes=1200-"]


def test_files_that_came_before_an_error_stay(host: Host, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="404"):
        fetch(host, tmp_path, "words.bin", "missing.bin")
    assert_whole(tmp_path)


def test_a_length_that_never_comes_is_an_error(host: Host, tmp_path: Path) -> None:
    host.script = [Answer(extra_length=10, ranges=False)] * 50
    problem = "the connection ended after 3000 of 3010 bytes"
    with pytest.raises(ValueError, match=by_hand(f"{host.url}/words.bin", problem, tmp_path)):
        fetch(host, tmp_path)
    assert len(host.requests) == 5
    assert not (tmp_path / "words.bin").exists()
    assert not (tmp_path / "downloads.json").exists()


def test_no_host_at_all_is_an_error(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, yet nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/words.bin"
        with pytest.raises(ValueError, match=rf"^{re.escape(url)}: .*Connection refused\. Try again later, or open"):
            download(Source(PAGE, {"words.bin": url}), tmp_path, backoff=0.01)
    assert listing(tmp_path) == set()


def test_a_host_that_sends_less_than_the_rest_is_asked_again(host: Host, tmp_path: Path) -> None:
    host.script = [Answer(stop_after=1200), Answer(at_most=500), Answer(at_most=500)]
    fetch(host, tmp_path)
    assert (tmp_path / "words.bin").read_bytes() == host.files["words.bin"]
    assert [request.range for request in host.requests] == [None, "bytes=1200-", "bytes=1700-", "bytes=2200-"]


# ---- hosts that cannot go on, or no longer with that file ----


def test_a_host_that_ignores_ranges_sends_the_whole_file_again(host: Host, tmp_path: Path) -> None:
    host.script = [Answer(stop_after=1200), Answer(ranges=False, stop_after=700), Answer(ranges=False)]
    fetch(host, tmp_path)
    assert_whole(tmp_path)
    assert host.ranges() == [None, "bytes=1200-", "bytes=700-"]


def test_a_file_that_changed_between_two_connections_is_not_mixed(host: Host, tmp_path: Path) -> None:
    host.script = [Answer(stop_after=1200), Answer(content=OTHER, stop_after=700)]
    fetch(host, tmp_path)
    assert_whole(tmp_path, OTHER)
    assert [request.if_range for request in host.requests] == [None, etag(CONTENT), etag(OTHER)]
    assert host.ranges() == [None, "bytes=1200-", "bytes=700-"]


def test_a_file_that_changed_between_two_calls_is_not_mixed(host: Host, tmp_path: Path) -> None:
    put_part(f"{host.url}/words.bin", tmp_path, CONTENT[:1200], CONTENT)
    host.files["words.bin"] = OTHER
    fetch(host, tmp_path)
    assert_whole(tmp_path, OTHER)


def test_the_date_serves_where_there_is_no_etag(host: Host, tmp_path: Path) -> None:
    host.otherwise = Answer(etag="none", last_modified=DATE)
    host.script = [Answer(etag="none", last_modified=DATE, stop_after=1200)]
    fetch(host, tmp_path)
    assert_whole(tmp_path)
    assert [(request.range, request.if_range) for request in host.requests] == [(None, None), ("bytes=1200-", DATE)]


@pytest.mark.parametrize("kind", ["none", "weak"])
def test_without_a_strong_etag_it_starts_over(kind: str, host: Host, tmp_path: Path) -> None:
    (tmp_path / "words.bin.part").write_bytes(b"of unknown origin")
    host.script = [Answer(etag=kind, stop_after=1200)]
    fetch(host, tmp_path)
    assert_whole(tmp_path)
    assert host.ranges() == [None, None]


def test_an_etag_that_the_host_gave_up_is_forgotten(host: Host, tmp_path: Path) -> None:
    """The second answer is another file without a mark: the first one's must not vouch for it."""
    host.script = [Answer(stop_after=1200), Answer(content=OTHER, etag="none", ranges=False, stop_after=700)]
    fetch(host, tmp_path)
    assert_whole(tmp_path, OTHER)
    assert host.ranges() == [None, "bytes=1200-", None]


def test_a_whole_part_is_kept(host: Host, tmp_path: Path) -> None:
    """The host answers 416 and says that this is all."""
    put_part(f"{host.url}/words.bin", tmp_path, CONTENT, CONTENT)
    fetch(host, tmp_path)
    assert_whole(tmp_path)
    assert host.ranges() == ["bytes=3000-"]


def test_a_part_longer_than_the_file_is_replaced(host: Host, tmp_path: Path) -> None:
    """The host answers 416 and says that the file is shorter."""
    put_part(f"{host.url}/words.bin", tmp_path, CONTENT + b"more", CONTENT)
    fetch(host, tmp_path)
    assert_whole(tmp_path)
    assert host.ranges() == ["bytes=3004-", None]


def test_a_part_that_a_host_cannot_place_is_replaced(host: Host, tmp_path: Path) -> None:
    host.script = [Answer(stop_after=1200), Answer(status=416)]
    fetch(host, tmp_path)
    assert_whole(tmp_path)
    assert host.ranges() == [None, "bytes=1200-", None]


def test_a_host_that_answers_416_to_everything_is_an_error(host: Host, tmp_path: Path) -> None:
    host.script = [Answer(stop_after=1200)]
    host.otherwise = Answer(status=416)
    problem = "the host answers 416 Requested Range Not Satisfiable"
    with pytest.raises(ValueError, match=by_hand(f"{host.url}/words.bin", problem, tmp_path)):
        fetch(host, tmp_path)
    assert len(host.requests) == 3
    assert not (tmp_path / "words.bin.part").exists()


@pytest.mark.parametrize("of", [CONTENT, OTHER], ids=["same", "other"])
def test_a_part_begun_at_another_address_is_not_continued(of: bytes, host: Host, tmp_path: Path) -> None:
    put_part("http://elsewhere.example/words.bin", tmp_path, of[:1200], of)
    fetch(host, tmp_path)
    assert_whole(tmp_path)
    assert host.ranges() == [None]


def test_a_part_from_the_official_host_is_not_continued_at_a_mirror(host: Host, tmp_path: Path) -> None:
    host.files["copies/words.bin"] = OTHER
    host.script = [Answer(stop_after=1200), *[Answer(stop_after=0)] * 4]
    with pytest.raises(ValueError, match="ended after 1200 of 3000 bytes"):
        fetch(host, tmp_path)
    fetch(host, tmp_path, mirror=f"{host.url}/copies")
    assert_whole(tmp_path, OTHER)
    assert host.requests[-1].range is None


@pytest.mark.parametrize("heeded", [True, False], ids=["heeds If-Range", "ignores If-Range"])
def test_two_files_are_never_mixed(heeded: bool, host: Host, tmp_path: Path) -> None:
    """Of the same length, so that the size gives nothing away; also by hosts that send the range all the same."""
    other = CONTENT[::-1]
    host.script = [Answer(stop_after=1200), Answer(content=other, if_range=heeded)]
    fetch(host, tmp_path)
    assert_whole(tmp_path, other)
    assert host.ranges() == [None, "bytes=1200-", *([] if heeded else [None])]


def test_another_range_than_the_one_asked_for_is_not_appended(host: Host, tmp_path: Path) -> None:
    host.script = [Answer(stop_after=1200), Answer(shift=5)]
    fetch(host, tmp_path)
    assert_whole(tmp_path)
    assert host.ranges() == [None, "bytes=1200-", None]


# ---- hosts that refuse ----


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "Unauthorized"), (403, "Forbidden"), (404, "Not Found"), (410, "Gone")]
)
def test_a_refusal_is_an_error_at_once(status: int, reason: str, host: Host, tmp_path: Path) -> None:
    host.otherwise = Answer(status=status)
    problem = f"the host answers {status} {reason}"
    with pytest.raises(ValueError, match=by_hand(f"{host.url}/words.bin", problem, tmp_path)):
        fetch(host, tmp_path)
    assert len(host.requests) == 1
    assert listing(tmp_path) == set()


def test_after_a_refusal_the_file_may_be_put_there_by_hand(host: Host, tmp_path: Path) -> None:
    host.otherwise = Answer(status=403)
    with pytest.raises(ValueError, match="by hand"):
        fetch(host, tmp_path)
    (tmp_path / "words.bin").write_bytes(CONTENT)
    fetch(host, tmp_path)
    assert len(host.requests) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_tried_again(status: int, host: Host, tmp_path: Path) -> None:
    host.script = [Answer(status=status)]
    fetch(host, tmp_path)
    assert_whole(tmp_path)
    assert len(host.requests) == 2


def test_a_failure_that_does_not_pass_is_an_error(host: Host, tmp_path: Path) -> None:
    host.script = [Answer(stop_after=1200), *[Answer(status=503)] * 50]
    problem = "HTTP Error 503: Service Unavailable"
    with pytest.raises(ValueError, match=by_hand(f"{host.url}/words.bin", problem, tmp_path)):
        fetch(host, tmp_path)
    assert len(host.requests) == 5
    assert (tmp_path / "words.bin.part").read_bytes() == CONTENT[:1200]


@pytest.mark.parametrize("part", [False, True], ids=["at the start", "later"])
def test_a_web_page_instead_of_the_file_is_an_error_at_once(part: bool, host: Host, tmp_path: Path) -> None:
    if part:
        put_part(f"{host.url}/words.bin", tmp_path, CONTENT[:1200], CONTENT)
    before = listing(tmp_path)
    host.otherwise = Answer(content=b"<html>Please log in</html>", content_type="text/html; charset=utf-8")
    problem = "the host answers with a web page instead of the file"
    with pytest.raises(ValueError, match=by_hand(f"{host.url}/words.bin", problem, tmp_path)):
        fetch(host, tmp_path)
    assert len(host.requests) == 1
    assert listing(tmp_path) == before
    if part:
        assert (tmp_path / "words.bin.part").read_bytes() == CONTENT[:1200]


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


# ---- errors that no second try would mend ----


def fails_at_once(url: str, problem: str, folder: Path, log: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match=by_hand(url, problem, folder)):
        download(Source(PAGE, {"words.bin": url}), folder, backoff=0.01)
    assert log.messages == []  # each further try is logged


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("gopher://host.invalid/words.bin", "unknown url type: gopher"),
        (
            "http://127.0.0.1/two words.bin",
            "URL can't contain control characters. '/two words.bin' (found at least ' ')",
        ),
        ("http://127.0.0.1:port/words.bin", "nonnumeric port: 'port'"),
    ],
    ids=["type", "space", "port"],
)
def test_an_address_that_is_none_fails_at_once(
    url: str, problem: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fails_at_once(url, problem, tmp_path, caplog)
    assert listing(tmp_path) == set()


def test_a_folder_instead_of_a_file_fails_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "copies/words.bin").mkdir(parents=True)
    url = (tmp_path / "copies/words.bin").as_uri()
    fails_at_once(url, f"[Errno 21] Is a directory: '{tmp_path}/copies/words.bin'", tmp_path / "raw", caplog)


def test_an_address_below_a_file_fails_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "copies").touch()
    url = (tmp_path / "copies/words.bin").as_uri()
    fails_at_once(url, f"[Errno 20] Not a directory: '{tmp_path}/copies/words.bin'", tmp_path / "raw", caplog)


@pytest.mark.parametrize("kind", [PermissionError, ssl.SSLCertVerificationError])
def test_a_refused_permission_or_certificate_fails_at_once(kind: type[OSError]) -> None:
    """Root may read everything, and a certificate is no thing to keep here: only the errors themselves."""
    with pytest.raises(module._FailedError, match="the cause"):
        module._passing(urllib.error.URLError(kind(1, "the cause")))


def test_an_error_of_the_disk_here_is_no_failed_download(host: Host, tmp_path: Path) -> None:
    (tmp_path / "words.bin.part").mkdir()
    with pytest.raises(IsADirectoryError, match=re.escape("words.bin.part")):
        fetch(host, tmp_path)
    assert len(host.requests) == 1


@pytest.mark.parametrize("mirror", ["/folder", "folder", "host.example/folder", "C:\\folder"])
def test_a_mirror_that_is_no_address_is_refused(mirror: str, host: Host, tmp_path: Path) -> None:
    message = f"mirror={mirror!r}: expected an address, such as https://host/folder or file:///folder"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fetch(host, tmp_path / "raw", mirror=mirror)
    assert host.requests == []
    assert not (tmp_path / "raw").exists()


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


# ---- archives ----


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, compression)  # without the time: always the same bytes
    return buffer.getvalue()


def put_archive(folder: Path, content: bytes) -> Path:
    path = folder / "words.zip"
    path.write_bytes(content)
    return path


def extracted(folder: Path) -> set[str]:
    """What came out of ``words.zip``, beside which nothing else is."""
    assert {path.name for path in folder.iterdir()} == {"words.zip", "words"}
    return listing(folder / "words") - {".archive"}


def test_an_archive_is_extracted_into_a_folder_of_its_name(tmp_path: Path) -> None:
    put_archive(tmp_path, archive({"a": CONTENT, "sub/deep/b": OTHER}, zipfile.ZIP_DEFLATED))
    extract_archives(tmp_path)
    assert extracted(tmp_path) == {"a", "sub", "sub/deep", "sub/deep/b"}
    assert (tmp_path / "words/a").read_bytes() == CONTENT
    assert (tmp_path / "words/sub/deep/b").read_bytes() == OTHER


def test_archives_within_an_archive_are_extracted_too_and_no_deeper(tmp_path: Path) -> None:
    inner = archive({"innermost.zip": archive({"c": CONTENT}), "b": OTHER})
    put_archive(tmp_path, archive({"sub/inner.zip": inner, "another.zip": archive({"d": b""})}))
    for _ in range(2):
        extract_archives(tmp_path)
        assert (tmp_path / "words/sub/inner/b").read_bytes() == OTHER
        assert {str(path.relative_to(tmp_path)) for path in raw_files(tmp_path)} == {
            "words.zip", "words/another.zip", "words/another/d", "words/sub/inner.zip", "words/sub/inner/b",
            "words/sub/inner/innermost.zip",
        }  # fmt: skip


def test_folders_and_what_a_mac_adds_are_skipped(tmp_path: Path) -> None:
    put_archive(tmp_path, archive({"sub/": b"", "a": b"1", "__MACOSX/._a": b"2", "sub/__MACOSX/._b": b"3"}))
    extract_archives(tmp_path)
    assert extracted(tmp_path) == {"a"}


def test_what_is_extracted_is_not_extracted_again(tmp_path: Path) -> None:
    put_archive(tmp_path, archive({"a": CONTENT}))
    extract_archives(tmp_path)
    (tmp_path / "words/a").write_bytes(b"touched")
    extract_archives(tmp_path)
    assert (tmp_path / "words/a").read_bytes() == b"touched"


def test_a_changed_archive_is_extracted_again(tmp_path: Path) -> None:
    put_archive(tmp_path, archive({"a": CONTENT, "only_in_first": b""}))
    extract_archives(tmp_path)
    put_archive(tmp_path, archive({"a": OTHER}))
    extract_archives(tmp_path)
    assert extracted(tmp_path) == {"a"}
    assert (tmp_path / "words/a").read_bytes() == OTHER


def test_an_archive_of_the_same_size_but_another_time_is_extracted_again(tmp_path: Path) -> None:
    path = put_archive(tmp_path, archive({"a": CONTENT}))
    extract_archives(tmp_path)
    put_archive(tmp_path, archive({"a": CONTENT[::-1]}))
    os.utime(path, ns=(0, 0))
    extract_archives(tmp_path)
    assert (tmp_path / "words/a").read_bytes() == CONTENT[::-1]


def test_a_folder_put_there_by_hand_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "words/a").write_bytes(b"by hand")
    for content in (CONTENT, OTHER):
        put_archive(tmp_path, archive({"a": content, "b": content}))
        extract_archives(tmp_path)
        assert listing(tmp_path) == {"words.zip", "words", "words/a"}
        assert (tmp_path / "words/a").read_bytes() == b"by hand"


def test_extracted_files_stay_without_their_archive(tmp_path: Path) -> None:
    path = put_archive(tmp_path, archive({"a": CONTENT}))
    extract_archives(tmp_path)
    path.unlink()
    extract_archives(tmp_path)
    assert listing(tmp_path) == {"words", "words/a", "words/.archive"}


def test_others_may_read_what_was_extracted(tmp_path: Path) -> None:
    put_archive(tmp_path, archive({"a": CONTENT}))
    extract_archives(tmp_path)
    assert stat.S_IMODE((tmp_path / "words").stat().st_mode) == 0o755


def with_bytes(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place + len(new) :]


def test_damage_that_the_system_reports_names_the_archive(tmp_path: Path) -> None:
    damaged = bytearray(archive({"a": b"first"}))
    offset = damaged.rindex(b"PK\x05\x06") + 16  # of the directory of members
    damaged[offset] ^= 0xFF
    damaged[offset + 1] ^= 0xFF
    (tmp_path / "x.zip").write_bytes(damaged)
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'x.zip'}: not a whole zip archive")):
        extract_archives(tmp_path)


def encrypted() -> bytes:
    content = archive({"a": b"first", "b": CONTENT})
    return with_bytes(content, content.rindex(b"PK\x01\x02") + 8, b"\x01")


def linked() -> bytes:
    link = zipfile.ZipInfo("b")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a", b"first")
        file.writestr(link, "/etc/passwd")
    return buffer.getvalue()


def with_method(content: bytes, method: int) -> bytes:
    """The last member is said to be compressed with another method."""
    for signature, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content = with_bytes(content, content.rindex(signature) + place, method.to_bytes(2, "little"))
    return content


DAMAGED = "not a whole zip archive ({}); delete the download and fetch it again"
TWO = archive({"a": b"first", "b": CONTENT})
COMPRESSED = archive({"a": b"first", "b": CONTENT}, zipfile.ZIP_DEFLATED)
REFUSED = {
    "no bytes": (b"", DAMAGED.format("File is not a zip file")),
    "truncated": (TWO[:-100], DAMAGED.format("File is not a zip file")),
    "checksum": (with_bytes(TWO, 1000, b"spoilt"), DAMAGED.format("Bad CRC-32 for file 'b'")),
    "data": (with_bytes(COMPRESSED, 70, b"\xff" * 30), "not a whole zip archive (Error -3 while decompressing data"),
    "header": (with_bytes(TWO, 0, b"xx"), DAMAGED.format("Bad magic number for file header")),
    "empty": (archive({}), "the archive is empty; delete the download and fetch it again"),
    "only a folder": (archive({"sub/": b""}), "the archive is empty; delete the download and fetch it again"),
    "compression": (with_method(TWO, 97), DAMAGED.format("That compression method is not supported")),
    "lzma": (
        with_method(TWO, zipfile.ZIP_LZMA),
        "not a whole zip archive (",
    ),
    "encrypted": (encrypted(), "member 'b' is encrypted; nothing was extracted"),
    "link": (linked(), "member 'b' is a link; nothing was extracted"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_a_damaged_archive_leaves_nothing(content: bytes, message: str, tmp_path: Path) -> None:
    path = put_archive(tmp_path, content)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {message}')}"):
        extract_archives(tmp_path)
    assert listing(tmp_path) == {"words.zip"}


@pytest.mark.parametrize(
    "member",
    ["../x", "sub/../../x", "..", "/x", "C:\\x", "C:/x", "c:x", "..\\x", "sub\\..\\..\\x", "\\x", "\\\\host\\share\\x"],
)
def test_a_member_that_would_land_outside_is_refused(member: str, tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    path = put_archive(folder, archive({"a": b"first", member: CONTENT}))
    message = f"{path}: member {member!r} would land outside of the folder; nothing was extracted"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        extract_archives(folder)
    assert listing(tmp_path) == {"raw", "raw/words.zip"}


def test_dots_within_a_name_are_harmless(tmp_path: Path) -> None:
    put_archive(tmp_path, archive({"..a..b": b"1", "sub/...": b"2"}))
    extract_archives(tmp_path)
    assert extracted(tmp_path) == {"..a..b", "sub", "sub/..."}


def test_an_archive_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put_archive(tmp_path, archive({"a": b"x" * 600, "b": b"x" * 600}, zipfile.ZIP_DEFLATED))
    monkeypatch.setattr(archives, "_MAX_EXTRACTED", 1199)
    message = f"{path}: 1,200 bytes when extracted, expected at most 1,199; not extracted"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        extract_archives(tmp_path)
    assert listing(tmp_path) == {"words.zip"}
    monkeypatch.setattr(archives, "_MAX_EXTRACTED", 1200)
    extract_archives(tmp_path)
    assert extracted(tmp_path) == {"a", "b"}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_a_damaged_inner_archive_is_named_and_leaves_nothing(content: bytes, message: str, tmp_path: Path) -> None:
    path = put_archive(tmp_path, archive({"sub/inner.zip": content, "b": b""}))
    for _ in range(2):
        with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: sub/inner.zip: {message}')}"):
            extract_archives(tmp_path)
        assert listing(tmp_path) == {"words.zip"}


def test_a_member_of_an_inner_archive_may_not_land_outside(tmp_path: Path) -> None:
    path = put_archive(tmp_path, archive({"inner.zip": archive({"../../x": CONTENT})}))
    message = f"{path}: inner.zip: member '../../x' would land outside of the folder; nothing was extracted"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        extract_archives(tmp_path)
    assert listing(tmp_path) == {"words.zip"}


def test_a_whole_archive_in_place_of_a_damaged_one_is_extracted(tmp_path: Path) -> None:
    whole = archive({"a": CONTENT})
    put_archive(tmp_path, whole[:-10])
    with pytest.raises(ValueError, match="not a whole zip archive"):
        extract_archives(tmp_path)
    put_archive(tmp_path, whole)
    extract_archives(tmp_path)
    assert (tmp_path / "words/a").read_bytes() == CONTENT


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


# ---- when a benchmark downloads ----


class Toy(BenchmarkDataModule):
    """A benchmark of three files, in ``toy.zip`` or as they are; ``readers`` beside it has a line a reading."""

    source: ClassVar[Source]

    def read_raw(self, files: Sequence[Path]) -> Raw:
        with self.folder.with_name("readers").open("a") as readers:
            readers.write("read\n")
        found = {split: [path for path in files if path.name == f"{split}.jsonl"] for split in ("train", "val", "test")}
        if not all(found.values()):
            raise self.not_found(files, "toy.zip")
        return Raw("toy.zip", {split: read_jsonl(paths) for split, paths in found.items()}, Counter())


def toy_zip(repeats: int = 1) -> bytes:
    lines = [json.dumps(document) + "\n" for document in TOY_DOCUMENTS if len(document["labels"]) == 1]
    content = "".join(lines * repeats).encode()
    return archive({f"toy/{split}.jsonl": content for split in ("train", "val", "test")}, zipfile.ZIP_DEFLATED)


@pytest.fixture
def toy(host: Host, tmp_path: Path) -> Toy:
    """Nothing fetched yet."""
    host.files["toy.zip"] = toy_zip()
    return new_toy(host, tmp_path)


def new_toy(host: Host, tmp_path: Path, *names: str) -> Toy:
    files = source(host, *names or ("toy.zip",))

    class Here(Toy):
        source = files

    return Here(name="toy", path=str(tmp_path / "data/toy"), batch_size=2, cache_dir=str(tmp_path / "cache"))


def times_read(tmp_path: Path) -> int:
    return len((tmp_path / "data/readers").read_text().splitlines())


def test_a_benchmark_is_downloaded_extracted_and_prepared_once(toy: Toy, host: Host, tmp_path: Path) -> None:
    toy.prepare_data()
    toy.prepare_data()
    again = new_toy(host, tmp_path)
    again.prepare_data()
    assert len(host.requests) == times_read(tmp_path) == 1
    assert again.path == toy.path
    assert toy.split_sizes() == {"train": 4, "val": 4, "test": 4}
    assert {path.name for path in toy.folder.iterdir()} == {"raw", toy.path.name}
    assert listing(toy.folder / "raw") == {
        ".lock", "downloads.json", "toy.zip", "toy", "toy/toy",
        "toy/toy/train.jsonl", "toy/toy/val.jsonl", "toy/toy/test.jsonl", "toy/.archive",
    }  # fmt: skip


def test_files_put_there_by_hand_need_no_host(toy: Toy, host: Host) -> None:
    raw = toy.folder / "raw"
    raw.mkdir(parents=True)
    (raw / "toy.zip").write_bytes(toy_zip(3))
    toy.prepare_data()
    assert toy.split_sizes()["train"] == 12
    assert host.requests == []


def test_a_benchmark_goes_on_with_a_broken_download(toy: Toy, host: Host) -> None:
    put_part(f"{host.url}/toy.zip", toy.folder / "raw", toy_zip()[:100], toy_zip())
    toy.prepare_data()
    assert host.ranges() == ["bytes=100-"]
    assert toy.split_sizes()["train"] == 4


def test_a_benchmark_fetches_the_files_that_it_lacks(host: Host, tmp_path: Path) -> None:
    host.files |= {"toy.zip": toy_zip(), "more.bin": OTHER}
    toy = new_toy(host, tmp_path, "toy.zip", "more.bin")
    download(source(host, "toy.zip"), toy.folder / "raw")
    toy.prepare_data()
    toy.prepare_data()
    assert [request.path for request in host.requests] == ["toy.zip", "more.bin"]


def test_files_put_beside_a_broken_download_are_used(toy: Toy, host: Host) -> None:
    raw = toy.folder / "raw"
    put_part(f"{host.url}/toy.zip", raw, toy_zip()[:100], toy_zip())
    with zipfile.ZipFile(io.BytesIO(toy_zip(2))) as content:
        content.extractall(raw)
    toy.prepare_data()
    assert toy.split_sizes()["train"] == 8
    assert host.requests == []


def test_a_changed_archive_is_read_again(toy: Toy, host: Host, tmp_path: Path) -> None:
    raw = toy.folder / "raw"
    toy.prepare_data()
    assert toy.split_sizes()["train"] == 4
    for path in (raw / "toy.zip", raw / "downloads.json"):
        path.unlink()
    host.files["toy.zip"] = toy_zip(3)
    toy.download()
    changed = new_toy(host, tmp_path)
    changed.prepare_data()
    assert changed.split_sizes()["train"] == 12
    assert changed.path != toy.path
    assert len(host.requests) == times_read(tmp_path) == 2


def test_an_archive_changed_by_hand_is_read_again(toy: Toy, host: Host, tmp_path: Path) -> None:
    (toy.folder / "raw").mkdir(parents=True)
    for repeats in (1, 3):
        (toy.folder / "raw/toy.zip").write_bytes(toy_zip(repeats))
        toy = new_toy(host, tmp_path)
        toy.prepare_data()
        assert toy.split_sizes()["train"] == 4 * repeats
    assert host.requests == []


def test_a_downloaded_archive_may_be_deleted_to_save_space(toy: Toy, host: Host) -> None:
    toy.prepare_data()
    (toy.folder / "raw/toy.zip").unlink()
    toy.prepare_data()
    assert len(host.requests) == 1


def test_a_downloaded_file_that_changed_is_refused_before_it_is_read(toy: Toy) -> None:
    toy.download()
    with (toy.folder / "raw/toy.zip").open("ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match=r"toy\.zip: size or SHA-256 differs from those at its download"):
        toy.prepare_data()
    assert [path.name for path in toy.folder.iterdir()] == ["raw"]


def test_a_refusing_host_leaves_a_benchmark_as_it_was(toy: Toy, host: Host) -> None:
    host.otherwise = Answer(status=403)
    message = by_hand(f"{host.url}/toy.zip", "the host answers 403 Forbidden", toy.folder / "raw", "toy.zip")
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            toy.prepare_data()
    assert listing(toy.folder) == {"raw", "raw/.lock"}


def test_a_mirror_of_a_benchmark(host: Host, tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    (folder / "toy.zip").write_bytes(toy_zip(2))
    toy = new_toy(host, tmp_path)
    toy.mirror = folder.as_uri()
    toy.prepare_data()
    assert toy.split_sizes()["val"] == 8
    assert host.requests == []


def test_threads_that_prepare_at_once_do_so_once(host: Host, tmp_path: Path) -> None:
    host.files["toy.zip"] = toy_zip(500)
    toys = [new_toy(host, tmp_path) for _ in range(6)]
    start, errors = threading.Barrier(len(toys)), []

    def run(toy: Toy) -> None:
        start.wait()
        try:
            toy.prepare_data()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(toy,)) for toy in toys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(host.requests) == times_read(tmp_path) == len({toy.path for toy in toys}) == 1
    assert all(toy.split_sizes()["test"] == 2000 for toy in toys)
    assert not [name for name in listing(tmp_path) if name.endswith((".part", ".etag", ".tmp"))]


def test_processes_that_prepare_at_once_do_so_once(tmp_path: Path) -> None:
    """From a folder: a host would be a thread, which does not outlive a fork."""
    (tmp_path / "toy.zip").write_bytes(toy_zip(500))

    class Here(Toy):
        source = Source(PAGE, {"toy.zip": (tmp_path / "toy.zip").as_uri()})

    toy = Here(name="toy", path=str(tmp_path / "data/toy"), batch_size=2, cache_dir=str(tmp_path / "cache"))
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=toy.prepare_data) for _ in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0] * 6
    assert times_read(tmp_path) == 1
    toy.prepare_data()
    assert times_read(tmp_path) == 1
    assert {path.name for path in toy.folder.iterdir()} == {"raw", toy.path.name}
    assert not [name for name in listing(tmp_path) if name.endswith((".part", ".etag", ".tmp"))]
