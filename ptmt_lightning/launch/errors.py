"""Errors that the user can fix: they are shown in one line, without a traceback, and leave no empty folder behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import CompactHydraException, HydraException, InstantiationException


def _mendable() -> tuple[type[Exception], ...]:
    """Return the types of errors that the user can fix; Lightning's own only if Lightning was imported already."""
    lightning = sys.modules.get("lightning.fabric.utilities.exceptions")
    return (ValueError, HydraException, *([lightning.MisconfigurationException] if lightning else []))


class JobNotRunError(CompactHydraException):
    """The error of a sweep's job that was never started, or was ended with the sweep, through no fault of its own."""


@contextmanager
def compact_errors() -> Iterator[None]:
    """Turn a ``ValueError`` of this block into an error that Hydra prints without a traceback; for Hydra's plugins.

    Raises:
        CompactHydraException: in place of the ``ValueError``.
    """
    try:
        yield
    except ValueError as error:
        raise CompactHydraException(f"error: {error}") from error


def _remove_empty(run_dir: Path) -> None:
    """Remove an empty run folder, and the folders above it that become empty, up to the working folder."""
    for folder in (run_dir, *run_dir.parents):
        if folder == Path.cwd() or folder in Path.cwd().parents or any(folder.iterdir()):
            return
        folder.rmdir()


@contextmanager
def user_errors(run_dir: Path | None = None) -> Iterator[None]:
    """End the program with one line and no traceback if this block raises an error that the user can fix.

    The environment variable ``PTMT_DEBUG=1`` shows the traceback.

    Args:
        run_dir: folder of the run, which is removed if it is empty; None if there is none yet.

    Raises:
        SystemExit: in place of the error.
    """
    try:
        yield
    except _mendable() as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if not isinstance(cause, _mendable()) or os.environ.get("PTMT_DEBUG"):
            raise
        if run_dir is not None:
            _remove_empty(run_dir)
        sys.exit(f"error: {cause}")
