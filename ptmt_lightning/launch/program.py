"""The command that started this process: ``python run.py`` of a checkout, or ``ptmt train``."""

from __future__ import annotations

import sys
from pathlib import Path


def this_program() -> list[str]:
    """Return the words of the command that starts this program again, without its arguments."""
    spec = sys.modules["__main__"].__spec__
    if spec is not None:  # python -m, ptmt train
        return [sys.executable, "-m", spec.name.removesuffix(".__main__")]
    return [sys.executable, str(Path(sys.argv[0]).absolute())]


def typed_program() -> list[str]:
    """Return the words of the command as a user types it, without its arguments; for messages."""
    return ["python", "run.py"] if sys.modules["__main__"].__spec__ is None else ["ptmt", "train"]
