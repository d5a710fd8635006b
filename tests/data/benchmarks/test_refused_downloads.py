"""Hosts that refuse, and errors that no second try would mend."""

from __future__ import annotations

import re
import ssl
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest
from downloads import CONTENT, PAGE, assert_whole, by_hand, fetch, listing, put_part, serving_words
from http_server import Answer, Host

from ptmt_lightning.data.benchmarks import download as module
from ptmt_lightning.data.benchmarks.download import Source, download


@pytest.fixture
def host() -> Iterator[Host]:
    """Serves ``words.bin``; gone after the test."""
    with serving_words() as host:
        yield host


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
