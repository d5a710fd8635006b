"""The checkpoints in a run's folder: their names, which one to go on from, what a killed process left."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"


def has_checkpoint(folder: Path) -> bool:
    """Whether there is anything to go on from."""
    return (folder / LAST).exists() or (folder / PREVIOUS).exists()


def newest(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint of ``folder`` that can be read, and its content on the CPU.

    Raises:
        ValueError: there is none.
    """
    import torch  # only here: whether there is a checkpoint is asked before anything is begun

    for path in (folder / LAST, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever unpickling a damaged file raises
            log.warning("%s is damaged (%s); looking for the one before it", path, type(error).__name__)
            continue
        return path, content
    raise ValueError(f"resume={str(folder.parent)!r}: no checkpoint there that can be read; start the run anew")


def remove_leftovers(run_dir: Path) -> None:
    """Remove what a killed process had begun to write."""
    for folder in (run_dir, run_dir / "checkpoints"):
        for path in folder.glob(".*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
