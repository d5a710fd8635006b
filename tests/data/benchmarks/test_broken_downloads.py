"""Connections that break: a download goes on where it broke off, and gives up where nothing more comes."""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from downloads import CONTENT, PAGE, assert_whole, by_hand, etag, fetch, listing, serving_words
from http_server import Answer, Host

from ptmt_lightning.data.benchmarks.download import Source, download


@pytest.fixture
def host() -> Iterator[Host]:
    """Serves ``words.bin``; gone after the test."""
    with serving_words() as host:
        yield host


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
