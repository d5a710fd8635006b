"""Waiting for processes, and looking at them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def wait_for(what: Callable[[], bool], seconds: float = 120) -> None:
    """Until ``what`` holds."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether there is a process that has not ended (one that nobody waited for has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def pids(folder: Path) -> list[int]:
    """Of the processes that were started in a job's folder."""
    return [int(line) for line in (folder / "starts").read_text().split()] if (folder / "starts").exists() else []
