"""Errors that end a program: those of known kinds are shown in one line, all others with a traceback as a bug.

Types of other packages are known by name, so that none of them is imported for this.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import ptmt_lightning
from ptmt_lightning.utils.secrets import mask

FAILED, WRONG_CALL, INTERRUPTED = 1, 2, 128 + signal.SIGINT

_ERRNOS = {
    errno.ENOSPC: "no space left on the disk; free some, then repeat the command",
    errno.EDQUOT: "no space left in the disk quota; free some, then repeat the command",
    errno.EFBIG: "the file gets larger than the disk or a limit (ulimit -f) allows; raise it, then repeat the command",
    errno.EACCES: "no permission; change the owner or the mode, or give another place",
    errno.EPERM: "no permission; change the owner or the mode, or give another place",
    errno.EROFS: "the disk can only be read; give another place",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
    errno.ENOMEM: "out of memory; lower the batch size (dataset.batch_size, --batch-size), or use a smaller model",
}
# What libraries say that pass on an error of the system without its number.
_SYSTEM_TEXTS = {
    errno.ENOSPC: r"No space left on device|disk is full|code: 28\b|os error 28\b",
    errno.EFBIG: r"File too large|os error 27\b|code: 27\b",
    errno.EACCES: r"Permission denied|os error 13\b|code: 13\b",
    errno.EROFS: r"Read-only file system|readonly database|os error 30\b|code: 30\b",
    errno.ENOMEM: r"out of memory|can't allocate memory|Cannot allocate memory|bad_alloc|bad allocation",
}
_TOLD = (  # libraries' own errors about settings
    "hydra.errors.HydraException", "omegaconf.errors.OmegaConfBaseException",
    "lightning.fabric.utilities.exceptions.MisconfigurationException", "wandb.errors.", "optuna.exceptions.",
    "sqlalchemy.exc.",
)  # fmt: skip
_BROKEN_FILES = (
    "yaml.error.YAMLError", "_pickle.UnpicklingError", "pickle.UnpicklingError", "zipfile.BadZipFile", "zlib.error",
    "_lzma.LZMAError", "builtins.EOFError", "safetensors.",
    "pyarrow.lib.ArrowException", "onnxruntime.capi.", "tarfile.TarError",
)  # fmt: skip
_UNREACHABLE = (
    "httpx.TransportError", "httpx2.TransportError", "requests.exceptions.ConnectionError", "socket.gaierror",
    "requests.exceptions.Timeout", "urllib.error.URLError", "builtins.ConnectionError", "builtins.TimeoutError",
    "huggingface_hub.errors.LocalEntryNotFoundError", "huggingface_hub.errors.OfflineModeIsEnabled",
)  # fmt: skip


def _is(error: BaseException, *names: str) -> bool:
    """Return whether an error is of a type with one of these full names, or of a module whose name ends in a dot."""
    types = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
    return any(kind == name or (name.endswith(".") and kind.startswith(name)) for kind in types for name in names)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def system_error(error: BaseException) -> str | None:
    """Return what a full disk, a missing permission or a lack of memory behind an error means, and what to do.

    Returns:
        None where the error has another reason.
    """
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno in _ERRNOS:
            where = f"{os.fsdecode(cause.filename)}: " if isinstance(cause.filename, (str, bytes)) else ""
            return where + _ERRNOS[cause.errno]
        if isinstance(cause, MemoryError) or _is(cause, "torch.OutOfMemoryError", "torch.cuda.OutOfMemoryError"):
            return _ERRNOS[errno.ENOMEM]
        for number, text in _SYSTEM_TEXTS.items():
            if isinstance(cause, Exception) and re.search(text, str(cause)):
                return f"{_ERRNOS[number]} ({_first_line(cause)})"
    return None


def _bad_setting(error: BaseException) -> str | None:
    """Return the message of an object that Hydra could not make of its settings."""
    if not _is(error, "hydra.errors.InstantiationException"):
        return None
    key = re.search(r"full_key: (\S+)", str(error))
    where = f"{key.group(1)}: " if key else ""
    cause = error.__cause__
    if isinstance(cause, TypeError) and (unknown := re.search(r"unexpected keyword argument '(\w+)'", str(cause))):
        name = f"{key.group(1)}.{unknown.group(1)}" if key else unknown.group(1)
        return f"{name}: there is no such setting; leave it out"
    if isinstance(cause, TypeError) and re.search(r"missing \d+ required", str(cause)):
        return f"{where}{cause}; set it"
    if cause is None or isinstance(cause, ImportError):
        return f"{where}{_first_line(error).removesuffix(':')}{f' ({cause})' if cause else ''}; check its _target_"
    return one_line(cause) or f"{where}{cause}; change the setting"


def _user_error(error: BaseException) -> str | None:
    if _is(error, "omegaconf.errors.InterpolationResolutionError"):  # of a resolver, which names its own key
        told = re.match(r"ValueError raised while resolving interpolation: (.*?)(\s+full_key: .*)?$", str(error), re.S)
        return told and told.group(1)
    return str(error) if isinstance(error, ValueError) else None


def _told_by_library(error: BaseException) -> str | None:
    return str(error) if _is(error, *_TOLD) else None


def _missing_package(error: BaseException) -> str | None:
    is_ours = isinstance(error, ImportError) and (error.name or "").startswith(("ptmt_lightning", "hydra_plugins"))
    return f"{error}; install it" if isinstance(error, ImportError) and not is_ours else None


def _broken_file(error: BaseException) -> str | None:
    if not _is(error, *_BROKEN_FILES):
        return None
    return f"a file is damaged, or not of the kind that was expected ({type(error).__name__}: {error}); restore it"


def _unreachable(error: BaseException) -> str | None:
    if not _is(error, *_UNREACHABLE) or isinstance(error, BrokenPipeError):
        return None
    return f"no connection: {error}; check the network, or give a local folder"


def _other_system_error(error: BaseException) -> str | None:
    return str(error) if isinstance(error, OSError) else None


# The kinds of errors that are no bugs: each gives the message of an error of its kind, or None. The first one that
# knows an error speaks.
KINDS: tuple[Callable[[BaseException], str | None], ...] = (
    _bad_setting,
    _user_error,
    system_error,
    _told_by_library,
    _unreachable,
    _broken_file,
    _missing_package,
    _other_system_error,
)


def one_line(error: BaseException) -> str | None:
    """Return the message of an error of a known kind, without secrets; None for a bug.

    Messages of several lines become one, but for those that list one job a line.
    """
    message = next((text for kind in KINDS if (text := kind(error)) is not None), None)
    if message is None:
        return None
    lines = [" ".join(line.split()) for line in message.splitlines() if line.strip()]
    return mask(("\n" if getattr(error, "lists_jobs", False) else " ").join(lines)).removeprefix("error: ")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class _Ending(NamedTuple):
    """How the program ends."""

    line: str | None  # None says nothing
    code: int


def _ending(error: BaseException, known: int) -> _Ending | None:
    """Return how an error ends the program; None for a bug."""
    if isinstance(error, KeyboardInterrupt):
        return _Ending("interrupted", INTERRUPTED)
    if isinstance(error, BrokenPipeError):
        return _Ending(None, FAILED)
    line = one_line(error)
    return None if line is None else _Ending(f"error: {line}", known)


def _remove_empty(run_dir: Path) -> None:
    """Remove an empty run folder, and the folders above it that become empty, up to the working folder."""
    for folder in (run_dir, *run_dir.parents):
        if folder == Path.cwd() or folder in Path.cwd().parents or not folder.is_dir() or any(folder.iterdir()):
            return
        folder.rmdir()


@contextmanager
def reported_errors(run_dir: Path | None = None, *, code: int = FAILED) -> Iterator[None]:
    """End the program if this block raises an error: with one line, or for a bug with its traceback and where it goes.

    The environment variable ``PTMT_DEBUG=1`` shows the traceback of all errors.

    Args:
        run_dir: folder of the run, which is removed if it is empty; None if there is none yet.
        code: the exit code after an error that is neither a bug nor an interruption.

    Raises:
        SystemExit: in place of the error.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit) as raised:
        # Lightning turns Ctrl-C into an exit with code 1.
        is_interrupt = isinstance(raised, SystemExit) and isinstance(raised.__context__, KeyboardInterrupt)
        if isinstance(raised, SystemExit) and not is_interrupt:
            raise
        error = raised.__context__ if is_interrupt else raised
        assert error is not None
        ending = _ending(error, code)
        if ending is None or os.environ.get("PTMT_DEBUG"):
            sys.stderr.write(mask("".join(traceback.format_exception(error))))
        if isinstance(error, BrokenPipeError):  # the reader of the output, such as head, has closed it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())  # type: ignore[union-attr]
        if run_dir is not None:
            _remove_empty(run_dir)
        if ending is None:
            ending = _Ending(
                f"bug: this is a fault of ptmt_lightning {ptmt_lightning.__version__}, not of your call; please report "
                "it with the lines above and the command, as CONTRIBUTING.md says (To report a bug)",
                FAILED,
            )
        if ending.code == FAILED and ending.line is not None:
            raise SystemExit(ending.line) from None
        if ending.line is not None:
            print(ending.line, file=sys.stderr)
        raise SystemExit(ending.code) from None
