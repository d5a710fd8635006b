"""A server in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
from conftest import TOY_EDGES, saved_ptmt

from ptmt_lightning.inference import Classifier
from ptmt_lightning.taxonomy import Taxonomy


class Server(NamedTuple):
    url: str
    process: subprocess.Popen[str]
    classifier: Classifier
    log: Path


def processes_of(session: int) -> list[int]:
    """Those alive of the session that a process began."""
    found = subprocess.run(["ps", "-o", "pid=", "-s", str(session)], capture_output=True, text=True)
    return [int(pid) for pid in found.stdout.split()]


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    """A server of a tiny model, which is made in ``folder``; nothing of it is left."""
    saved_ptmt(folder, Taxonomy(TOY_EDGES))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("ptmt")), "serve", str(folder / "model"), "--port", str(port),
             "--max-pending", "8", "--timeout", "5"],
            stdout=file, stderr=subprocess.STDOUT, text=True, start_new_session=True, cwd=folder,
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, process)
        yield Server(url, process, Classifier.from_pretrained(folder / "model"), log)
    finally:
        for pid in processes_of(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()


def wait_until_ready(url: str, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        assert process.poll() is None
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise TimeoutError(url)
