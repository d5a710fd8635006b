"""The command ``ptmt train``, which trains and tests one configuration, or starts a sweep or a search."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path


def train(arguments: Sequence[str]) -> None:
    """Run ``python -m ptmt_lightning.launch`` with these arguments, in this process.

    Jobs of a sweep and further ranks are started with that command, so this process must behave like it: it gets the
    same main module, and can import modules from the working folder, such as one with a user's own model.
    """
    sys.argv[1:] = arguments
    sys.path.insert(0, str(Path.cwd()))
    runpy.run_module("ptmt_lightning.launch", run_name="__main__", alter_sys=True)
