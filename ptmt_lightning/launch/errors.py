"""Errors that Hydra's plugins raise: Hydra hands them on as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import CompactHydraException


class JobsFailedError(CompactHydraException):
    """Jobs of a sweep failed; the message has a line for each."""

    lists_jobs = True


class JobNotRunError(JobsFailedError):
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
