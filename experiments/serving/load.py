"""Puts a server under mixed load for minutes, kills its processes, and sends its signals.

Clients send valid, malformed and huge requests, and others are idle, slow, do not read, or speak no HTTP. Every answer
is compared with what the same model predicts in Python; the memory of all processes is read once a second. Meanwhile
the process that predicts is stopped and killed, the one that it is forked from is killed, and the server itself, which
is then started again. In the end a server gets each of the signals that end it, and what is left of it is counted.

    python experiments/serving/load.py RUN/model DATA/newsgroups --minutes 10
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pandas as pd
from hostile_clients import EXPECTED, NOT_ANSWERED, Client, Hostile, same
from model_and_data import PTMT, memory_mb, parser_for, processes_of, test_documents, worker_of

from ptmt_lightning.inference import Classifier

_RECOVERY_SECONDS = 120  # at most, before the experiment gives up


class Server:
    """``ptmt serve`` in a session of its own.

    Args:
        model: folder of the model.
        port: number of the port to listen on.
        max_pending: largest number of requests that may wait for an answer.
    """

    def __init__(self, model: Path, port: int, max_pending: int) -> None:
        self.command = [
            PTMT, "serve", str(model), "--port", str(port), "--max-pending", str(max_pending), "--timeout", "20",
        ]  # fmt: skip
        self.url = f"http://127.0.0.1:{port}"
        self.start()

    def start(self) -> None:
        """Start it, and return before it answers."""
        self.process = subprocess.Popen(
            self.command, start_new_session=True, stderr=subprocess.DEVNULL,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in a background job
        )  # fmt: skip

    def end_by(self, number: int) -> dict[str, Any]:
        """Return what becomes of its processes after a signal: the exit status, and seconds until none is left.

        Args:
            number: the signal, which the server itself gets.
        """
        began = time.monotonic()
        self.process.send_signal(number)
        while time.monotonic() < began + 60 and (self.process.poll() is None or processes_of(self.process.pid)):
            time.sleep(0.1)
        seconds = time.monotonic() - began
        left = len(processes_of(self.process.pid))
        return {"signal": signal.Signals(number).name, "status": self.process.poll(), "seconds": seconds, "left": left}


class Event(NamedTuple):
    """What was done to the server, and when."""

    event: str
    at: float


class Soak:
    """The server, its clients, and what is done to it.

    Args:
        server: the server.
        texts: texts to be labelled.
        known: the right prediction for each text.
    """

    def __init__(self, server: Server, texts: list[str], known: list[Any]) -> None:
        self.server, self.texts, self.known = server, texts, known
        self.began = time.monotonic()
        self.events: list[Event] = []
        self.memory: list[float] = []

    def ask(self) -> bool:
        """Return whether a text is answered rightly."""
        try:
            answer = httpx.post(f"{self.server.url}/predict", json={"texts": self.texts[:1]}, timeout=30)
        except httpx.TransportError:
            return False
        return answer.status_code == 200 and same(answer.json()["predictions"][0], self.known[0])

    def wait_until_right(self, since: float) -> float:
        """Return the seconds until a text is answered rightly.

        Args:
            since: when to count from.
        """
        while not self.ask():
            if time.monotonic() - since > _RECOVERY_SECONDS:
                break
            time.sleep(0.05)
        return time.monotonic() - since

    def run(self, minutes: float) -> None:
        """Read the memory each second, and let one event after the other happen, evenly over the time."""
        events: list[tuple[str, Callable[[], None]]] = [
            ("the worker is killed", self._kill_worker),
            ("the worker is stopped for 5 seconds", self._stop_worker),
            ("the process that the worker is forked from is killed", self._kill_origin),
            ("the server is killed, and started again", self._kill_server),
        ]
        self.began = time.monotonic()
        thread = threading.Thread(target=self._events, args=(events, 60 * minutes / (len(events) + 1)))
        thread.start()
        while time.monotonic() < self.began + 60 * minutes or thread.is_alive():
            time.sleep(1)
            self.memory.append(memory_mb(self.server.process.pid))

    def _events(self, events: list[tuple[str, Callable[[], None]]], interval: float) -> None:
        for number, (name, act) in enumerate(events, start=1):
            time.sleep(max(0.0, self.began + number * interval - time.monotonic()))
            self.events.append(Event(name, time.monotonic()))
            act()
            self.wait_until_right(time.monotonic())

    def outages(self, answered: list[float]) -> list[dict[str, Any]]:
        """Return, for each event and the time before them, the longest time in which no client was given labels.

        Args:
            answered: when clients had such an answer, in order.
        """
        begins = [Event("none yet", self.began), *self.events]
        ends = [event.at for event in self.events] + [answered[-1]]
        rows = []
        for event, end in zip(begins, ends, strict=True):
            times = [event.at, *(time for time in answered if event.at < time < end), end]
            longest = max(later - earlier for earlier, later in pairwise(times))
            rows.append(
                {"event": event.event, "minute": (event.at - self.began) / 60, "seconds_without_answer": longest}
            )
        return rows

    def _kill_worker(self) -> None:
        os.kill(worker_of(self.server.process.pid), signal.SIGKILL)

    def _stop_worker(self) -> None:
        worker = worker_of(self.server.process.pid)
        os.kill(worker, signal.SIGSTOP)
        time.sleep(5)
        os.kill(worker, signal.SIGCONT)

    def _kill_origin(self) -> None:
        worker = worker_of(self.server.process.pid)
        found = subprocess.run(["ps", "-o", "ppid=", "-p", str(worker)], capture_output=True, text=True)
        os.kill(int(found.stdout), signal.SIGKILL)

    def _kill_server(self) -> None:
        self.server.end_by(signal.SIGKILL)
        self.server.start()


def end_by_each_signal(soak: Soak) -> list[dict[str, Any]]:
    """Send the server each of the signals that end it, and start it again in between; return what became of it.

    Args:
        soak: the server, which runs.
    """
    rows: list[dict[str, Any]] = []
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL):
        if rows:
            soak.server.start()
            soak.wait_until_right(time.monotonic())
        rows.append(soak.server.end_by(number))
    pd.DataFrame(rows).round(2).to_csv(Path(__file__).with_name("load_signals.csv"), index=False)
    return rows


def main() -> None:
    """Run server and clients, and write ``load.csv`` and its fellows.

    Raises:
        SystemExit: always; its status is 1 if an answer was wrong, the server does not answer at the end, or a process
            is left.
    """
    parser = parser_for(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--hostile", type=int, default=8, help="clients that are idle, slow, or speak no HTTP")
    parser.add_argument("--max-pending", type=int, default=4, help="few, so that some are turned away")
    parser.add_argument("--port", type=int, default=8765)
    options = parser.parse_args()
    texts = [document["text"] for document in test_documents(options.data)][:1000]
    known = Classifier.from_pretrained(options.model, device="cpu").predict(texts)
    soak = Soak(Server(options.model, options.port, options.max_pending), texts, known)
    soak.wait_until_right(time.monotonic())
    stop = threading.Event()
    url = soak.server.url
    clients = [Client(url, seed, texts, known, stop) for seed in range(options.clients)]
    hostile = [Hostile(url, seed, stop) for seed in range(options.hostile)]
    threads: list[threading.Thread] = [*clients, *hostile]
    for thread in threads:
        thread.start()
    soak.run(options.minutes)
    stop.set()
    for thread in threads:
        thread.join()
    alive = soak.ask()
    signals = end_by_each_signal(soak)
    _write(soak, clients, hostile, alive, signals, vars(options))


def _write(
    soak: Soak, clients: list[Client], hostile: list[Hostile], alive: bool, signals: list[dict[str, Any]],
    options: dict[str, Any],
) -> None:  # fmt: skip
    answers: Counter[tuple[str, int]] = sum((c.answers for c in clients), Counter())
    answers += sum((c.answers for c in hostile), Counter())
    rows = [{"kind": kind, "status": status, "requests": n} for (kind, status), n in sorted(answers.items())]
    seconds = sorted(second for client in clients for second in client.seconds)
    wrong = [problem for client in clients for problem in client.wrong]
    wrong += [f"{kind}: {status}" for kind, status in answers if status not in EXPECTED[kind] | {NOT_ANSWERED}]
    outages = soak.outages(sorted(time for client in clients for time in client.answered))
    third = len(soak.memory) // 3
    summary = {
        **{name: options[name] for name in ("minutes", "clients", "hostile", "max_pending")},
        "requests": answers.total(), "wrong": len(wrong), "answers_after": alive,
        "seconds_median": statistics.median(seconds), "seconds_p99": seconds[int(0.99 * len(seconds))],
        "memory_mb_first_third": statistics.median(soak.memory[:third]),
        "memory_mb_last_third": statistics.median(soak.memory[-third:]), "memory_mb_most": max(soak.memory),
    }  # fmt: skip
    events = pd.DataFrame(outages).round(2)
    tables = (pd.DataFrame(rows), events, pd.DataFrame(signals), pd.Series(summary))
    print(*(table.to_string() for table in tables), *wrong[:10], sep="\n")
    folder = Path(__file__).parent
    pd.DataFrame(rows).to_csv(folder / "load_answers.csv", index=False)
    events.to_csv(folder / "load_events.csv", index=False)
    pd.DataFrame([summary]).round(3).to_csv(folder / "load.csv", index=False)
    sys.exit(bool(wrong) or not alive or any(row["left"] for row in signals))


if __name__ == "__main__":
    main()
