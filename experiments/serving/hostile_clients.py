"""The clients of ``load.py``: those that want labels, and those that a server must withstand."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections import Counter
from typing import Any

import httpx

NOT_ANSWERED = 0  # in place of a status: the server closed the connection, or was not there
# The statuses that each kind of request may get.
EXPECTED = {
    "wanted": {200, 503}, "many": {200, 503}, "malformed": {400, 422, 503}, "wrong_option": {422, 503},
    "huge_body": {413, 503}, "slow_body": {408, 503}, "huge_headers": {431, 503}, "slow_headers": {408, 503},
    "idle": {503}, "no_http": {400, 503}, "other_host": {400, 503}, "hangs_up": {503}, "does_not_read": {200, 503},
}  # fmt: skip


class Client(threading.Thread):
    """A client that sends one request after the other until it is told to stop.

    Args:
        url: address of the server.
        seed: decides which requests are sent.
        texts: texts to be labelled.
        known: the right prediction for each text.
        stop: is set when the client is to stop.
    """

    def __init__(self, url: str, seed: int, texts: list[str], known: list[Any], stop: threading.Event) -> None:
        super().__init__()
        self.url, self.draw, self.texts, self.known, self.stop = url, random.Random(seed), texts, known, stop
        self.answers: Counter[tuple[str, int]] = Counter()
        self.seconds: list[float] = []
        self.answered: list[float] = []  # when texts were answered
        self.wrong: list[str] = []

    def run(self) -> None:
        """Send requests of random kinds, most of them valid, and note statuses, times and wrong answers."""
        kinds = {"wanted": 60, "many": 10, "malformed": 15, "wrong_option": 10, "huge_body": 5}
        with httpx.Client(timeout=120) as http:
            while not self.stop.is_set():
                [kind] = self.draw.choices(list(kinds), weights=list(kinds.values()))
                try:
                    status = self._send(http, kind)
                except httpx.TransportError:
                    status = NOT_ANSWERED
                self.answers[kind, status] += 1
                if status in (NOT_ANSWERED, 503):
                    time.sleep(0.2)

    def _send(self, http: httpx.Client, kind: str) -> int:
        if kind in ("wanted", "many"):
            rows = self.draw.sample(range(len(self.texts)), 1 if kind == "wanted" else min(64, len(self.texts)))
            began = time.perf_counter()
            answer = http.post(f"{self.url}/predict", json={"texts": [self.texts[row] for row in rows]})
            if answer.status_code == 200:
                self.answered.append(time.monotonic())
                if kind == "wanted":
                    self.seconds.append(time.perf_counter() - began)
                for row, found in zip(rows, answer.json()["predictions"], strict=True):
                    if not same(found, self.known[row]):
                        self.wrong.append(f"document {row}: {found}")
            return answer.status_code
        content = {
            "malformed": self.draw.choice([b'{"texts": [', b'{"texts": [1]}', b"[" * 9000, b'{"texts": ["\\ud800"]}']),
            "wrong_option": b'{"texts": ["a"], "threshold": [0.5, 2]}',
            "huge_body": b'{"texts": ["' + b"a" * 3_000_000 + b'"]}',
        }[kind]
        headers = {"Content-Type": "application/json"}
        return http.post(f"{self.url}/predict", content=content, headers=headers).status_code


class Hostile(threading.Thread):
    """A client that is idle, slow or huge, hangs up, does not read, or speaks no HTTP, over and over.

    Args:
        url: address of the server.
        seed: decides what it does.
        stop: is set when it is to stop.
    """

    def __init__(self, url: str, seed: int, stop: threading.Event) -> None:
        super().__init__()
        host, port = url.removeprefix("http://").split(":")
        self.address, self.draw, self.stop = (host, int(port)), random.Random(seed), stop
        self.answers: Counter[tuple[str, int]] = Counter()

    def run(self) -> None:
        """Open connections of random kinds, and note the statuses of their answers."""
        body = json.dumps({"texts": ["word " * 50] * 200}).encode()
        whole = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        post = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
        sent = {
            "idle": b"", "no_http": b"\x16\x03\x01 hello\r\n\r\n", "slow_headers": b"GET / HTTP/1.1\r\n",
            "slow_body": post + b"Content-Length: 1000\r\n\r\n{", "huge_headers": post + b"X: " + b"a" * 200_000,
            "other_host": b"GET / HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n", "hangs_up": post + whole,
            "does_not_read": (post + whole) * 3,
        }  # fmt: skip
        while not self.stop.is_set():
            kind = self.draw.choice(list(sent))
            try:
                status = self._open(kind, sent[kind])
            except OSError:
                status = NOT_ANSWERED
                time.sleep(0.2)
            self.answers[kind, status] += 1

    def _open(self, kind: str, content: bytes) -> int:
        with socket.create_connection(self.address, timeout=60) as connection:
            connection.sendall(content)
            if kind == "hangs_up":
                time.sleep(self.draw.random())
                return NOT_ANSWERED
            while kind in ("slow_headers", "slow_body"):  # a byte now and then, until the server has had enough
                time.sleep(0.5)
                connection.settimeout(0.01)
                try:
                    first = connection.recv(100)
                    break
                except TimeoutError:
                    connection.sendall(b"a")
            else:
                if kind == "does_not_read":
                    time.sleep(10)
                first = connection.recv(100)
        return int(first.split()[1]) if first else NOT_ANSWERED


def same(found: list[dict[str, Any]], known: list[Any]) -> bool:
    """Return whether two predictions have equal labels, and probabilities that differ by rounding only.

    Rounding differs between batches of different sizes.

    Args:
        found: the paths in the server's answer.
        known: the paths that Python predicts.
    """
    return [tuple(path["path"]) for path in found] == [path.labels for path in known] and all(
        abs(one - other) < 1e-4
        for path, like in zip(found, known, strict=True)
        for one, other in zip(path["probabilities"], like.probabilities, strict=True)
    )
