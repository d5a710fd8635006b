"""The checkpoints in a run's folder: which one to resume from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from ptmt_lightning.run_folder.paths import RunFolder

log = logging.getLogger(__name__)


def newest(folder: RunFolder) -> tuple[Path, dict[str, Any]]:
    """Return the newest checkpoint of a run that can be read: its path, and its content on the CPU.

    Raises:
        ValueError: no checkpoint can be read.
    """
    for path in (folder.last_checkpoint, folder.previous_checkpoint):
        if not path.exists():
            continue
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever unpickling a damaged file raises
            log.warning("%s is damaged (%s); looking for the one before it", path, type(error).__name__)
            continue
        return path, content
    raise ValueError(f"resume={str(folder.path)!r}: no checkpoint there that can be read; start the run anew")
