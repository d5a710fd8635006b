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
from typing import Any, NamedTuple

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


def worker_of(server: Server) -> int:
    """The process that predicts."""
    [worker] = [pid for pid in processes_of(server.process.pid) if _name(pid) == "ptmt-worker"]
    return worker


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except FileNotFoundError:
        return ""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start_server(model: Path, log: Path, *arguments: str) -> tuple[str, subprocess.Popen[str]]:
    """Address and process of a server that is starting."""
    port = free_port()
    with log.open("w") as file:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("ptmt")), "serve", str(model), "--port", str(port), *arguments],
            stdout=file, stderr=subprocess.STDOUT, text=True, start_new_session=True, cwd=model.parent,
        )  # fmt: skip
    return f"http://127.0.0.1:{port}", process


@contextmanager
def served(
    folder: Path, *arguments: str, taxonomy: Taxonomy | None = None, **changes: Any
) -> Iterator[Server]:  # fmt: skip
    """A server of a tiny model, which is made in ``folder``; nothing of it is left."""
    saved_ptmt(folder, taxonomy or Taxonomy(TOY_EDGES), **changes)
    with serving_model(folder / "model", "--max-pending", "8", "--timeout", "5", *arguments) as server:
        yield server


@contextmanager
def serving_model(model: Path, *arguments: str) -> Iterator[Server]:
    """A server of a saved model; nothing of it is left but its log, beside the model."""
    log = model.with_name("log")
    url, process = start_server(model, log, *arguments)
    try:
        wait_until_ready(url, process)
        yield Server(url, process, Classifier.from_pretrained(model), log)
    finally:
        for pid in processes_of(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()


def connect(server: Server, first: bytes = b"") -> socket.socket:
    """A connection over which something has been sent."""
    connection = socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=30)
    connection.sendall(first)
    return connection


def rest(connection: socket.socket) -> bytes:
    """All that the server still sends, until it closes the connection."""
    parts = []
    try:
        while part := connection.recv(2**16):
            parts.append(part)
    except ConnectionError:
        pass
    return b"".join(parts)


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
