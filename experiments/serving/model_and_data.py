"""What the scripts beside it share: their arguments, the documents, a server that is ready."""

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
    """With a model's folder and that of a data set."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model/ folder of a run")
    parser.add_argument("data", type=Path, help="folder with test.jsonl.gz")
    return parser


def test_documents(data: Path) -> list[dict[str, Any]]:
    """With ``text`` and ``labels``."""
    with gzip.open(data / "test.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@contextlib.contextmanager
def server(model: Path, port: int, max_pending: int = 64) -> Iterator[tuple[str, int]]:
    """The address and process number of a server that is ready."""
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
