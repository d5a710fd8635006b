"""Puts a server under load: several clients send valid, malformed, huge and slow requests at once.

Every answer is compared with what the same model predicts in Python. The memory of all of the server's processes is
read once a second.

    python experiments/serving/load.py RUN/model DATA/newsgroups --minutes 5
"""

from __future__ import annotations

import contextlib
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
from model_and_data import parser_for, server, test_documents

from ptmt_lightning.inference import Classifier

NOT_ANSWERED = 0  # in place of a status: the server closed the connection
# The statuses that each kind of request may get.
EXPECTED = {
    "wanted": {200, 503}, "many": {200, 503}, "malformed": {422, 503}, "wrong_option": {422, 503},
    "huge": {413, 503, NOT_ANSWERED}, "slow": {408, 503, NOT_ANSWERED},
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
        self.wrong: list[str] = []

    def run(self) -> None:
        """Send requests of random kinds, most of them valid, and note statuses, times and wrong answers."""
        with httpx.Client(timeout=120) as http:
            while not self.stop.is_set():
                [kind] = self.draw.choices(list(EXPECTED), weights=[60, 10, 15, 10, 4, 1])
                status = self._send(http, kind)
                self.answers[kind, status] += 1
                if status not in EXPECTED[kind]:
                    self.wrong.append(f"{kind}: {status}")
                if status == 503:
                    time.sleep(0.2)

    def _send(self, http: httpx.Client, kind: str) -> int:
        if kind == "slow":
            return self._slow()
        if kind in ("wanted", "many"):
            rows = self.draw.sample(range(len(self.texts)), 1 if kind == "wanted" else 64)
            began = time.perf_counter()
            answer = http.post(f"{self.url}/predict", json={"texts": [self.texts[row] for row in rows]})
            if answer.status_code == 200:
                if kind == "wanted":
                    self.seconds.append(time.perf_counter() - began)
                for row, found in zip(rows, answer.json()["predictions"], strict=True):
                    if not same(found, self.known[row]):
                        self.wrong.append(f"document {row}: {found}")
            return answer.status_code
        content = {
            "malformed": self.draw.choice([b'{"texts": [', b'{"texts": [1]}', b"[]", b'{"texts": ["\\ud800"]}']),
            "wrong_option": b'{"texts": ["a"], "threshold": [0.5, 2]}',
            "huge": b'{"texts": ["' + b"a" * 3_000_000 + b'"]}',
        }[kind]
        try:
            headers = {"Content-Type": "application/json"}
            return http.post(f"{self.url}/predict", content=content, headers=headers).status_code
        except httpx.TransportError:
            return NOT_ANSWERED

    def _slow(self) -> int:
        """Send a request whose body never ends, and return the status of the answer."""
        host, port = self.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\n{")
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


def main() -> None:
    """Run server and clients, and write ``load.csv`` and ``load_answers.csv``.

    Raises:
        SystemExit: always; its status is 1 if an answer was wrong, or the server does not answer at the end.
    """
    parser = parser_for(__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--max-pending", type=int, default=8, help="few, so that some are turned away")
    parser.add_argument("--port", type=int, default=8765)
    options = parser.parse_args()
    texts = [document["text"] for document in test_documents(options.data)][:1000]
    known = Classifier.from_pretrained(options.model, device="cpu").predict(texts)
    stop = threading.Event()
    with server(options.model, options.port, options.max_pending) as (url, pid):
        clients = [Client(url, seed, texts, known, stop) for seed in range(options.clients)]
        for client in clients:
            client.start()
        memory = []
        end = time.monotonic() + 60 * options.minutes
        while time.monotonic() < end:
            time.sleep(1)
            memory.append(_memory(pid))
        stop.set()
        for client in clients:
            client.join()
        alive = httpx.post(f"{url}/predict", json={"texts": texts[:1]}, timeout=60).status_code
    answers = sum((client.answers for client in clients), Counter[tuple[str, int]]())
    rows = [{"kind": kind, "status": status, "requests": n} for (kind, status), n in sorted(answers.items())]
    print(pd.DataFrame(rows).to_string())
    seconds = sorted(second for client in clients for second in client.seconds)
    wrong = [problem for client in clients for problem in client.wrong]
    third = len(memory) // 3
    summary = {
        "minutes": options.minutes, "clients": options.clients, "max_pending": options.max_pending,
        "requests": answers.total(), "wrong": len(wrong), "status_after": alive,
        "seconds_median": statistics.median(seconds), "seconds_p99": seconds[int(0.99 * len(seconds))],
        "memory_mb_first_third": statistics.median(memory[:third]),
        "memory_mb_last_third": statistics.median(memory[-third:]), "memory_mb_most": max(memory),
    }  # fmt: skip
    print(pd.Series(summary).round(3).to_string(), *wrong[:10], sep="\n")
    folder = Path(__file__).parent
    pd.DataFrame(rows).to_csv(folder / "load_answers.csv", index=False)
    pd.DataFrame([summary]).round(3).to_csv(folder / "load.csv", index=False)
    sys.exit(bool(wrong) or alive != 200)


def _memory(session: int) -> float:
    """Return the memory of all processes of a session in MB; pages that several share are counted once (PSS)."""
    total = 0
    found = subprocess.run(["ps", "-o", "pid=", "-s", str(session)], capture_output=True, text=True)
    for pid in found.stdout.split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


if __name__ == "__main__":
    main()
