"""Files and folders that are either whole or absent; who may read them is for the umask to say."""

from __future__ import annotations

import glob
import json
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def check_folder_of(path: Path, option: str) -> None:
    """Refuse an output file whose folder does not exist, before any work is done.

    Raises:
        ValueError: there is no such folder; the message names the option.
    """
    if not path.parent.is_dir():
        raise ValueError(f"{option} {path}: no folder {str(path.parent)!r}; make it first")


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
def new_folder(path: Path, *, locked: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; rename it to ``path`` at the end, or remove it after an error.

    Args:
        path: of the folder to be made.
        locked: no other process makes this folder now; temporary folders that killed processes left are removed.
    """
    if locked:
        for left in path.parent.glob(f"{glob.escape(path.name)}.*.tmp"):
            shutil.rmtree(left, ignore_errors=True)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a failed write does not know its file
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
