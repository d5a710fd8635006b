"""The parts that the scripts of this folder share: their arguments, their documents, a running server."""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

PTMT = str(Path(sys.executable).with_name("ptmt"))


def parser_for(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser with the arguments of all scripts: the folders of a model and of a data set.

    Args:
        doc: docstring of the script, shown as its description.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model/ folder of a run")
    parser.add_argument("data", type=Path, help="folder with test.jsonl.gz")
    return parser


def test_documents(data: Path) -> list[dict[str, Any]]:
    """Return the documents of the test split, each with its ``text`` and its ``labels``.

    Args:
        data: folder of the data set.
    """
    with gzip.open(data / "test.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@contextlib.contextmanager
def server(model: Path, port: int, max_pending: int = 64) -> Iterator[tuple[str, int]]:
    """Run ``ptmt serve`` within this block, and give its address and process number once it is ready.

    Args:
        model: folder of the model.
        port: number of the port to listen on.
        max_pending: largest number of requests that may wait for an answer.
    """
    command = [PTMT, "serve", str(model), "--port", str(port), "--max-pending", str(max_pending)]
    process = subprocess.Popen(command, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        while process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            time.sleep(0.1)
        yield url, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def processes_of(session: int) -> list[int]:
    """Return the processes of a session that are alive.

    Args:
        session: process number of the one that began it.
    """
    found = subprocess.run(["ps", "-o", "pid=,stat=", "-s", str(session)], capture_output=True, text=True)
    rows = [line.split() for line in found.stdout.splitlines()]
    return [int(pid) for pid, state in rows if not state.startswith("Z")]


def worker_of(session: int) -> int:
    """Return the process that predicts, once it is there.

    Args:
        session: process number of the server.
    """
    while True:
        for pid in processes_of(session):
            with contextlib.suppress(FileNotFoundError):
                if Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip() == "ptmt-worker":
                    return pid
        time.sleep(0.05)


def memory_mb(session: int) -> float:
    """Return the memory of all processes of a session in MB; pages that several share are counted once (PSS).

    Args:
        session: process number of the one that began it.
    """
    total = 0
    for pid in processes_of(session):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024
