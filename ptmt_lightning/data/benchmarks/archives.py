"""Safe extraction of zip archives: nothing lands outside the target, is too large, or is left half extracted."""

from __future__ import annotations

import errno
import lzma
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

from ptmt_lightning.utils.files import new_folder

_BLOCK = 1 << 20
_MAX_EXTRACTED = 8 << 30  # bytes of one archive's content: several times the largest benchmark


def extract_archives(folder: Path) -> None:
    """Extract each zip archive in ``folder``, and those within it, into a folder of its name beside it.

    An archive is extracted again only after it has changed, and never over a folder that was put there by hand. The
    caller holds a lock, so that no other process extracts now: what a killed one left is removed.

    Raises:
        ValueError: an archive is damaged, empty, encrypted or too large, or has a member that is a link or would land
            outside of the folder; the message names it.
    """
    for archive in sorted(folder.glob("*.zip")):
        target, stat_ = archive.with_suffix(""), archive.stat()
        origin = f"{stat_.st_size} {stat_.st_mtime_ns}"
        marker = target / ".archive"
        if marker.exists() and marker.read_text(encoding="utf-8") != origin:
            shutil.rmtree(target)
        if target.exists():
            continue
        with new_folder(target) as temporary:
            _extract(archive, temporary, str(archive))
            for inner in sorted(path for path in temporary.rglob("*.zip") if path.is_file()):
                if inner.with_suffix("").exists():  # extracted by whoever made the archive
                    continue
                inner.with_suffix("").mkdir()
                _extract(inner, inner.with_suffix(""), f"{archive}: {inner.relative_to(temporary)}")
            (temporary / marker.name).write_text(origin, encoding="utf-8")


def _extract(archive: Path, folder: Path, shown: str) -> None:
    with _damage_named(shown):
        content = zipfile.ZipFile(archive)
    with content:
        members = [m for m in content.infolist() if not m.is_dir() and "__MACOSX" not in m.filename]
        _check_members(members, shown)
        for member in members:
            path = folder / member.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for block in _blocks(content, member, shown):
                    file.write(block)


def _blocks(content: zipfile.ZipFile, member: zipfile.ZipInfo, shown: str) -> Iterator[bytes]:
    with _damage_named(shown), content.open(member) as source:
        yield from iter(partial(source.read, _BLOCK), b"")


@contextmanager
def _damage_named(shown: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, OSError) as error:
        # Damage is an OSError without a number, or EINVAL: a place before the beginning of the file.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise ValueError(f"{shown}: can't be read ({error.strerror}); mend that, then start again") from None
        raise ValueError(
            f"{shown}: not a whole zip archive ({error}); delete the download and fetch it again"
        ) from None


def _check_members(members: Sequence[zipfile.ZipInfo], shown: str) -> None:
    if not members:
        raise ValueError(f"{shown}: the archive is empty; delete the download and fetch it again")
    size = sum(member.file_size for member in members)
    if size > _MAX_EXTRACTED:
        raise ValueError(f"{shown}: {size:,} bytes when extracted, expected at most {_MAX_EXTRACTED:,}; not extracted")
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        problem = (
            "would land outside of the folder"
            if path.is_absolute() or ".." in path.parts or ":" in "".join(path.parts[:1]) or not path.parts
            else "is a link" if stat.S_ISLNK(member.external_attr >> 16)
            else "is encrypted" if member.flag_bits & 1
            else None
        )  # fmt: skip
        if problem:
            raise ValueError(f"{shown}: member {member.filename!r} {problem}; nothing was extracted")
