"""``ptmt train``: train and test one configuration, or start a sweep or a search."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path


def train(arguments: Sequence[str]) -> None:
    """Run ``python -m ptmt_lightning.launch`` with the arguments, in this process.

    Jobs of a sweep and further ranks are started with that command, so this process has to look like it: its main
    module is the same, and modules in the working folder, as those of a user's own model, can be imported.
    """
    sys.argv[1:] = arguments
    sys.path.insert(0, str(Path.cwd()))
    runpy.run_module("ptmt_lightning.launch", run_name="__main__", alter_sys=True)
