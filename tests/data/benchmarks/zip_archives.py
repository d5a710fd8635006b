"""Zip archives, and what came out of them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from downloads import listing


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, compression)  # without the time: always the same bytes
    return buffer.getvalue()


def put_archive(folder: Path, content: bytes) -> Path:
    path = folder / "words.zip"
    path.write_bytes(content)
    return path


def extracted(folder: Path) -> set[str]:
    """What came out of ``words.zip``, beside which nothing else is."""
    assert {path.name for path in folder.iterdir()} == {"words.zip", "words"}
    return listing(folder / "words") - {".archive"}
