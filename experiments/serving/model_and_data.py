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
