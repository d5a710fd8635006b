"""Clients that hold connections, send too much or too slowly, do not read, or speak no HTTP, at a running server."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from processes import wait_for
from served import Server, connect, rest, served

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("served"), "--max-connections", "40") as server:
        yield server
        assert "Traceback" not in server.log.read_text()
        assert "Exception" not in server.log.read_text()


def status_of(answer: bytes) -> int:
    return int(answer.split()[1]) if answer else 0


def send_until_cut(connection: socket.socket, part: bytes) -> None:
    """Send until the server cuts the connection, or for half a minute.

    Raises:
        ConnectionError: the server has cut it.
    """
    began = time.monotonic()
    while time.monotonic() < began + 30:
        connection.sendall(part)
        time.sleep(0.005)


def memory_mb(server: Server) -> float:
    [size] = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{server.process.pid}/status").read_text())
    return int(size) / 1024


HEAD = b"GET /live HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("sent", "status", "reason"),
    [
        (HEAD + b"X: aaaaaaaaaaaaaa\r\n" * 4000 + b"\r\n", 431, "more than 65536 bytes"),
        (HEAD + b"X: " + b"a" * 70_000, 431, "more than 65536 bytes"),
        (b"GET /" + b"a" * 70_000, 431, "more than 65536 bytes"),
        (HEAD + b"X" * 70_000, 431, "more than 65536 bytes"),
        (HEAD + b"a: b\r\n" * 20_000, 431, "more than 65536 bytes"),
        (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + b"0" * 70_000, 431, ""),
        (b"\x16\x03\x01\x02\x00 a TLS hello\r\n\r\n", 400, "Invalid HTTP request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Host"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400, "Host"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400, "Content-Length"),
        (b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "chunk"),
        (b"GET /live HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "chunk"),
    ],
)  # fmt: skip
def test_large_headers_and_no_http_are_refused(server: Server, sent: bytes, status: int, reason: str) -> None:
    with connect(server, sent) as connection:
        answer = rest(connection)
    assert status_of(answer) == status
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head
    assert reason in json.loads(body)["detail"]
    assert len(body) < 300


def test_headers_without_end_take_no_memory(server: Server) -> None:
    """Fault B5."""
    before = memory_mb(server)
    with connect(server, HEAD) as connection, pytest.raises(ConnectionError):
        send_until_cut(connection, b"X: " + b"a" * 100_000 + b"\r\n")
    assert memory_mb(server) - before < 10
    assert httpx.get(f"{server.url}/live").status_code == 200


def test_bodies_without_end_take_no_memory(server: Server) -> None:
    before = memory_mb(server)

    def flood(line: bytes) -> None:
        head = line + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000000000\r\n\r\n"
        with connect(server, head) as connection, pytest.raises(ConnectionError):
            send_until_cut(connection, b"a" * 100_000)

    with ThreadPoolExecutor(3) as clients:
        list(clients.map(flood, (b"GET /live", b"POST /predict", b"PUT /x")))
    assert memory_mb(server) - before < 20


def test_silent_and_slow_connections_are_closed_and_lock_nobody_out(server: Server) -> None:
    """Fault B6: of 500 silent connections, some with a part of a request or after a request."""
    openings = [
        b"",
        b"GET",
        HEAD,
        HEAD + b"\r\n",
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n",
    ]
    began = time.monotonic()
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(server, openings[n % len(openings)])) for n in range(500)]
        # Where the machine is busy, a prediction may take longer than the first question about health waits for it.
        wait_for(lambda: httpx.get(f"{server.url}/health", timeout=30).status_code == 200)
        for connection in silent:
            rest(connection)
    assert time.monotonic() - began < 20
    metrics = httpx.get(f"{server.url}/metrics").text
    assert re.search(r'closed_total\{reason="idle"\} [1-9]', metrics)
    assert re.search(r'closed_total\{reason="too_many"\} [1-9]', metrics)
    assert "ptmt_connections 1.0" in metrics


def trickle(server: Server, first: bytes) -> tuple[int, float]:
    """Status of the answer to a request whose bytes come one by one, and seconds until the connection is cut."""
    began = time.monotonic()
    answer = b""
    with connect(server, first) as connection:
        connection.settimeout(0.2)
        while time.monotonic() < began + 30:
            try:
                connection.sendall(b"a")
                if not (part := connection.recv(1000)):
                    break
                answer += part
            except TimeoutError:
                continue
            except ConnectionError:
                break
    return status_of(answer), time.monotonic() - began


def test_headers_and_bodies_that_trickle_in_are_cut(server: Server) -> None:
    """No byte prolongs the time."""
    body = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{"
    ignored = HEAD + b"Content-Length: 100000\r\n\r\n"  # answered at once, and the rest of it is not awaited for long
    with ThreadPoolExecutor(3) as clients:
        found = list(clients.map(lambda first: trickle(server, first), (HEAD, body, ignored)))
    for (status, seconds), statuses, most in zip(found, ({408, 0}, {408, 0}, {200}), (9, 14, 13), strict=True):
        assert status in statuses
        assert seconds < most


def test_clients_that_do_not_read_or_hang_up_hold_nobody_up(server: Server) -> None:
    content = json.dumps({"texts": ["m n o p q"] * 200, "top_k": 7, "prune": False}).encode()
    request = (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    )
    request %= len(content), content
    with ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(connect(server, request * 3))
        for _ in range(12):
            connect(server, request).close()
        deadline = time.monotonic() + 30
        while httpx.post(f"{server.url}/predict", json={"texts": ["m"]}, timeout=30).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_requests_one_after_the_other_on_a_connection_are_answered_in_order(server: Server) -> None:
    asked = b"".join(b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % path for path in (b"live", b"none", b"health"))
    with connect(server, asked + HEAD + b"Connection: close\r\n\r\n") as connection:
        answers = rest(connection)
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"404", b"200", b"200"]
