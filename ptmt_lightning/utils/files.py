"""Files and folders that are either whole or absent; who may read them is for the umask to say."""

from __future__ import annotations

import glob
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import lock_descriptor

_MAX_JSON = 2**28  # bytes


def check_folder_of(path: Path, option: str) -> None:
    """Refuse an output file whose folder does not exist, before any work is done.

    Raises:
        ValueError: there is no such folder; the message names the option.
    """
    if not path.parent.is_dir():
        raise ValueError(f"{option} {path}: no folder {str(path.parent)!r}; make it first")


def check_file(path: Path, expected: str = "expected a file") -> None:
    """Refuse what can't be opened as a file, before it is.

    Args:
        path: of the file.
        expected: what the file is to hold, for the error message.

    Raises:
        ValueError: there is nothing, a folder, a link that leads nowhere, or what the user may not read.
    """
    if path.is_dir():
        raise ValueError(f"{path}: a folder; {expected}")
    if not path.exists():
        if path.is_symlink():
            raise ValueError(f"{path}: a link to {str(path.readlink())!r}, which is not there; {expected}")
        raise ValueError(f"{path}: no such file; {expected}")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path}: no permission to read it; ask its owner for it, or copy it")


def read_json_object(path: Path, remedy: str = "restore it, or download it again") -> dict[str, Any]:
    """Return the content of a JSON file that holds an object, such as the settings of a saved model.

    Args:
        path: of the file, at most 256 MiB large: the largest tokenizers take 40.
        remedy: what the user is to do about a file that is none.

    Raises:
        ValueError: there is no such file, or it is too large, not UTF-8, not JSON or not an object; the message names
            the file.
    """
    check_file(path, remedy)
    if path.stat().st_size > _MAX_JSON:
        raise ValueError(f"{path}: more than {_MAX_JSON:,} bytes, expected a JSON file of a model; {remedy}")
    try:
        content = json.loads(path.read_bytes())  # JSON in UTF-16 and UTF-32 is known by its first bytes
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file ({error}); {remedy}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}; {remedy}")
    return content


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file under a temporary name, then rename it: a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a failed write does not know its file
        raise
    finally:
        temporary.unlink(missing_ok=True)  # still there only after an error


def leftovers_of(path: Path) -> list[Path]:
    """Return the temporary files of :func:`write_text` that killed processes left beside ``path``."""
    return [found for found in path.parent.glob(f".{glob.escape(path.name)}.*") if found.is_file()]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an indented JSON file, in the way of :func:`write_text`."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; rename it to ``path`` at the end, or remove it after an error.

    The folder is locked meanwhile. Those of killed processes are not any more, and are removed first.

    Args:
        path: of the folder to be made.
    """
    remove_abandoned(path.parent.glob(f"{glob.escape(path.name)}.*.tmp"))
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    hidden = temporary.with_name(f".{temporary.name}")  # until it is locked
    hidden.mkdir()
    with _locked(hidden):
        hidden.rename(temporary)
        try:
            yield temporary
            temporary.rename(path)
        except OSError as error:
            error.filename = error.filename or str(path)  # a failed write does not know its file
            raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_abandoned(folders: Iterable[Path]) -> None:
    """Remove temporary folders of :func:`new_folder` whose makers were killed; not on Windows, which locks no folders.

    Args:
        folders: temporary folders; those that a living process is filling are left alone.
    """
    for folder in folders:
        with suppress(OSError), _locked(folder) as is_free:  # it has gone meanwhile, or the disk knows no locks
            if is_free:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Lock a folder within this block; give False if another process has locked it, or folders can't be locked."""
    if sys.platform == "win32":
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            is_free = lock_descriptor(descriptor, blocking=False)
        except OSError:  # of a disk that knows no locks
            is_free = False
        yield is_free
    finally:
        os.close(descriptor)
