"""Errors that the user can mend: one line, no traceback, nothing left behind."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.errors import CompactHydraException, HydraException, InstantiationException


def _mendable() -> tuple[type[Exception], ...]:
    """Return the kinds of such errors; Lightning's own one where it was imported, and may have been raised."""
    lightning = sys.modules.get("lightning.fabric.utilities.exceptions")
    return (ValueError, HydraException, *([lightning.MisconfigurationException] if lightning else []))


class JobNotRunError(CompactHydraException):
    """A job of a sweep was not started, or ended with the sweep, for no fault of its own."""


@contextmanager
def compact_errors() -> Iterator[None]:
    """In a plugin of Hydra's: let it print an error that the user can mend, and no traceback."""
    try:
        yield
    except ValueError as error:
        raise CompactHydraException(f"error: {error}") from error


def _remove_empty(run_dir: Path) -> None:
    """Remove an empty run folder, and above it what it leaves empty, up to the working folder."""
    for folder in (run_dir, *run_dir.parents):
        if folder == Path.cwd() or folder in Path.cwd().parents or any(folder.iterdir()):
            return
        folder.rmdir()


@contextmanager
def user_errors(run_dir: Path | None = None) -> Iterator[None]:
    """End the program with one line, no traceback and no empty run folder for an error that the user can mend."""
    try:
        yield
    except _mendable() as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if not isinstance(cause, _mendable()):
            raise
        if run_dir is not None:
            _remove_empty(run_dir)
        sys.exit(f"error: {cause}")
