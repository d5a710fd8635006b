"""Hosts that cannot go on where a download broke off, or no longer with that file: it starts over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from downloads import CONTENT, OTHER, assert_whole, by_hand, etag, fetch, put_part, serving_words
from http_server import Answer, Host

DATE = "Mon, 05 Feb 2024 10:00:00 GMT"


@pytest.fixture
def host() -> Iterator[Host]:
    """Serves ``words.bin``; gone after the test."""
    with serving_words() as host:
        yield host


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
