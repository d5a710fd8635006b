"""Download of official files from their hosts: resumed after a broken connection, and checked.

The first download of a file records its size and SHA-256 beside it, in ``downloads.json``. From then on the file is
checked against the record. If a host refuses scripted clients, the error says what to fetch by hand and where to
put it.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from ptmt_lightning.utils.files import write_json

log = logging.getLogger(__name__)

_RECORD = "downloads.json"
_ATTEMPTS = 5  # failed tries in a row without a new byte, after which a download is given up
_BLOCK = 1 << 20
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses after which another try may succeed
_PASSING_ERRORS = (urllib.error.URLError, ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException)
_LASTING_ERRORS = (
    FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ssl.SSLCertVerificationError,
    http.client.InvalidURL,
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Where the official files of a data set are.

    Args:
        page: address of the page with terms, citation and links, for people.
        files: for each file, the name to keep it under and its address.
    """

    page: str
    files: dict[str, str]


def zenodo(record: str, *names: str) -> Source:
    """Return the source of the named files in a Zenodo record."""
    page = f"https://zenodo.org/records/{record}"
    return Source(page=page, files={name: f"{page}/files/{name}?download=1" for name in names})


class _FailedError(Exception):
    """A download failed in a way that another try would not mend."""


def download(source: Source, folder: Path, *, mirror: str | None = None, backoff: float = 1.0) -> None:
    """Download the files of ``source`` that are missing in ``folder``, and check those that are there.

    Args:
        source: the files and their addresses.
        folder: where the files are kept, made if it is missing.
        mirror: base address (``https://``, ``http://`` or ``file://``) to fetch from instead, by the same names.
        backoff: seconds before the second try; doubled for each further one.

    Raises:
        ValueError: a file can't be fetched or has changed, or the mirror is no address; the message says what to do.
    """
    if mirror is not None and not (mirror.isascii() and re.match("(https?://[^/]|file:///)", mirror)):
        raise ValueError(f"mirror={mirror!r}: expected an address, such as https://host/folder or file:///folder")
    folder.mkdir(parents=True, exist_ok=True)
    check_downloads(folder)
    for name, url in source.files.items():
        if (folder / name).exists():
            continue
        url = f"{mirror.rstrip('/')}/{name}" if mirror else url
        part = folder / f"{name}.part"
        try:
            _fetch(url, part, backoff)
        except _FailedError as error:
            raise ValueError(
                f"{url}: {error}. Try again later, or open {source.page}, fetch {name} by hand, "
                f"put it into {str(folder)!r} and repeat the command"
            ) from None
        _keep(part, folder / name, url)


def is_unfinished(source: Source, folder: Path) -> bool:
    """Return whether a download into ``folder`` has begun and not fetched all files yet."""
    record = _record(folder)
    # A recorded file that is gone was deleted by hand, perhaps to save space: that is no reason to fetch it again.
    return bool(record) and any(name not in record and not (folder / name).exists() for name in source.files)


def check_downloads(folder: Path) -> None:
    """Compare the files in ``folder`` with the record of their download.

    Raises:
        ValueError: a file differs, or the record can't be read.
    """
    for name, expected in _record(folder).items():
        path = folder / name
        if path.exists() and _identity(path) != {key: expected[key] for key in ("bytes", "sha256")}:
            raise ValueError(
                f"{path}: size or SHA-256 differs from those at its download, recorded in {folder / _RECORD}; "
                "delete the file to fetch it again"
            )


def _record(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / _RECORD
    if not path.exists():
        return {}
    try:
        record: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return {name: {key: entry[key] for key in ("url", "bytes", "sha256")} for name, entry in record.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not what a download recorded ({error!r}); correct it or delete it") from None


def _identity(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _keep(part: Path, path: Path, url: str) -> None:
    """Record a whole file, or compare it with the record of an earlier download; then give it its name.

    Raises:
        ValueError: the host serves another file than at the first download.
    """
    record = _record(path.parent)
    identity = _identity(part)
    if path.name in record:
        expected = {key: record[path.name][key] for key in identity}
        if identity != expected:
            part.unlink()
            raise ValueError(
                f"{url}: SHA-256 {identity['sha256']} of {identity['bytes']} bytes, expected {expected['sha256']} of "
                f"{expected['bytes']}, as at the first download; the host serves another file now. To accept it, "
                f"delete {path.name!r} from {path.parent / _RECORD}"
            )
    write_json(path.parent / _RECORD, {**record, path.name: {"url": url, **identity}})
    part.rename(path)


def _fetch(url: str, part: Path, backoff: float) -> None:
    """Download the rest of ``part``, in as many connections as that takes.

    Raises:
        _FailedError: the host refuses, or several tries in a row brought no new byte.
    """
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(part.stem, total=None)
        failures, most = 0, _size(part)
        while True:
            try:
                _transfer(url, part, progress, task)
                break
            except _PASSING_ERRORS as error:
                problem = _passing(error)
            failures = 1 if _size(part) > most else failures + 1
            most = max(most, _size(part))
            if failures == _ATTEMPTS:
                raise _FailedError(str(problem))
            log.warning("%s: %s; trying again", part.stem, problem)
            time.sleep(backoff * 2 ** (failures - 1))
    _mark_path(part).unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _passing(error: Exception) -> Exception:
    """Return the cause of a failed connection if another try may succeed.

    Raises:
        _FailedError: another try would fail, too.
    """
    if isinstance(error, urllib.error.HTTPError):
        if error.code in _PASSING:
            return error
        raise _FailedError(f"the host answers {error.code} {error.reason}")
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if not isinstance(cause, Exception) or isinstance(cause, _LASTING_ERRORS):
        raise _FailedError(str(cause))
    return cause


def _transfer(url: str, part: Path, progress: Progress, task: TaskID) -> None:
    """Download over one connection: continue ``part`` if the host still has the same file, else start anew."""
    headers = {"User-Agent": f"ptmt_lightning/{version('ptmt_lightning')}"}
    size, mark_path = _size(part), _mark_path(part)
    known = mark_path.read_text(encoding="utf-8").split("\n") if mark_path.exists() else []
    if size and known[:1] == [url]:
        headers |= {"Range": f"bytes={size}-", "If-Range": known[1]}
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and size:
            if error.headers.get("Content-Range") == f"bytes */{size}":
                return  # the file is whole, an earlier start only did not rename it
            part.unlink()
            raise ConnectionError("the part at hand does not fit the file") from None
        raise
    with response:
        if response.headers.get_content_type() == "text/html":
            raise _FailedError("the host answers with a web page instead of the file")
        mark = response.headers.get("ETag") or response.headers.get("Last-Modified")
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        same = response.headers.get("Content-Range", "").startswith(f"bytes {size}-") and mark in (None, *known[1:])
        if resumed and not same:
            part.unlink()
            raise ConnectionError("the host sent another file or range than the one asked for")
        with part.open("ab" if resumed else "wb") as file:
            if mark and not mark.startswith("W/"):  # a weak ETag does not promise equal bytes
                _mark_path(part).write_text(f"{url}\n{mark}", encoding="utf-8")
            elif not resumed:
                _mark_path(part).unlink(missing_ok=True)
            # A host may send only a part of the rest, so the length of the file is read from the range.
            whole = response.headers.get("Content-Range", "").rpartition("/")[2] if resumed else ""
            rest = response.headers.get("Content-Length", "")
            total = int(whole) if whole.isdecimal() else file.tell() + int(rest) if rest.isdecimal() else None
            progress.update(task, total=total, completed=file.tell())
            while block := response.read1(_BLOCK):
                file.write(block)
                progress.update(task, completed=file.tell())
            if total is not None and file.tell() < total:
                raise ConnectionError(f"the connection ended after {file.tell()} of {total} bytes")


def _mark_path(part: Path) -> Path:
    """Return the path of the note on the file that ``part`` is the beginning of: its address, and its ETag or date."""
    return part.with_name(f"{part.name}.etag")


def raw_files(folder: Path) -> list[Path]:
    """Return the files in ``folder``, sorted, without this module's own notes, hidden files and what is unfinished."""
    found = []
    for parent, folders, names in os.walk(folder):  # unlike rglob, it tolerates that another process renames files
        folders[:] = [name for name in folders if not name.startswith(".") and not name.endswith(".tmp")]
        found += [
            Path(parent, name)
            for name in names
            if name != _RECORD and not name.startswith(".") and not name.endswith((".part", ".etag"))
        ]
    return sorted(found)
