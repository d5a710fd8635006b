"""Archives that are damaged or hostile leave nothing."""

from __future__ import annotations

import io
import re
import stat
import zipfile
from pathlib import Path

import pytest
from downloads import CONTENT, listing
from zip_archives import archive, extracted, put_archive

from ptmt_lightning.data.benchmarks import archives
from ptmt_lightning.data.benchmarks.archives import extract_archives


def with_bytes(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place + len(new) :]


def test_damage_that_the_system_reports_names_the_archive(tmp_path: Path) -> None:
    damaged = bytearray(archive({"a": b"first"}))
    offset = damaged.rindex(b"PK\x05\x06") + 16  # of the directory of members
    damaged[offset] ^= 0xFF
    damaged[offset + 1] ^= 0xFF
    (tmp_path / "x.zip").write_bytes(damaged)
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'x.zip'}: not a whole zip archive")):
        extract_archives(tmp_path)


def test_what_is_no_damage_is_not_called_so(tmp_path: Path) -> None:
    (tmp_path / "x.zip").mkdir()
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'x.zip'}: can't be read (Is a directory)")):
        extract_archives(tmp_path)


def encrypted() -> bytes:
    content = archive({"a": b"first", "b": CONTENT})
    return with_bytes(content, content.rindex(b"PK\x01\x02") + 8, b"\x01")


def linked() -> bytes:
    link = zipfile.ZipInfo("b")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a", b"first")
        file.writestr(link, "/etc/passwd")
    return buffer.getvalue()


def with_method(content: bytes, method: int) -> bytes:
    """The last member is said to be compressed with another method."""
    for signature, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content = with_bytes(content, content.rindex(signature) + place, method.to_bytes(2, "little"))
    return content


DAMAGED = "not a whole zip archive ({}); delete the download and fetch it again"
TWO = archive({"a": b"first", "b": CONTENT})
COMPRESSED = archive({"a": b"first", "b": CONTENT}, zipfile.ZIP_DEFLATED)
REFUSED = {
    "no bytes": (b"", DAMAGED.format("File is not a zip file")),
    "truncated": (TWO[:-100], DAMAGED.format("File is not a zip file")),
    "checksum": (with_bytes(TWO, 1000, b"spoilt"), DAMAGED.format("Bad CRC-32 for file 'b'")),
    "data": (with_bytes(COMPRESSED, 70, b"\xff" * 30), "not a whole zip archive (Error -3 while decompressing data"),
    "header": (with_bytes(TWO, 0, b"xx"), DAMAGED.format("Bad magic number for file header")),
    "empty": (archive({}), "the archive is empty; delete the download and fetch it again"),
    "only a folder": (archive({"sub/": b""}), "the archive is empty; delete the download and fetch it again"),
    "compression": (with_method(TWO, 97), DAMAGED.format("That compression method is not supported")),
    "lzma": (
        with_method(TWO, zipfile.ZIP_LZMA),
        "not a whole zip archive (",
    ),
    "encrypted": (encrypted(), "member 'b' is encrypted; nothing was extracted"),
    "link": (linked(), "member 'b' is a link; nothing was extracted"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_a_damaged_archive_leaves_nothing(content: bytes, message: str, tmp_path: Path) -> None:
    path = put_archive(tmp_path, content)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {message}')}"):
        extract_archives(tmp_path)
    assert listing(tmp_path) == {"words.zip"}


@pytest.mark.parametrize(
    "member",
    ["../x", "sub/../../x", "..", "/x", "C:\\x", "C:/x", "c:x", "..\\x", "sub\\..\\..\\x", "\\x", "\\\\host\\share\\x"],
)
def test_a_member_that_would_land_outside_is_refused(member: str, tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    path = put_archive(folder, archive({"a": b"first", member: CONTENT}))
    message = f"{path}: member {member!r} would land outside of the folder; nothing was extracted"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        extract_archives(folder)
    assert listing(tmp_path) == {"raw", "raw/words.zip"}


def test_an_archive_that_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put_archive(tmp_path, archive({"a": b"x" * 600, "b": b"x" * 600}, zipfile.ZIP_DEFLATED))
    monkeypatch.setattr(archives, "_MAX_EXTRACTED", 1199)
    message = f"{path}: 1,200 bytes when extracted, expected at most 1,199; not extracted"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        extract_archives(tmp_path)
    assert listing(tmp_path) == {"words.zip"}
    monkeypatch.setattr(archives, "_MAX_EXTRACTED", 1200)
    extract_archives(tmp_path)
    assert extracted(tmp_path) == {"a", "b"}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_a_damaged_inner_archive_is_named_and_leaves_nothing(content: bytes, message: str, tmp_path: Path) -> None:
    path = put_archive(tmp_path, archive({"sub/inner.zip": content, "b": b""}))
    for _ in range(2):
        with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: sub/inner.zip: {message}')}"):
            extract_archives(tmp_path)
        assert listing(tmp_path) == {"words.zip"}


def test_a_member_of_an_inner_archive_may_not_land_outside(tmp_path: Path) -> None:
    path = put_archive(tmp_path, archive({"inner.zip": archive({"../../x": CONTENT})}))
    message = f"{path}: inner.zip: member '../../x' would land outside of the folder; nothing was extracted"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        extract_archives(tmp_path)
    assert listing(tmp_path) == {"words.zip"}


def test_a_whole_archive_in_place_of_a_damaged_one_is_extracted(tmp_path: Path) -> None:
    whole = archive({"a": CONTENT})
    put_archive(tmp_path, whole[:-10])
    with pytest.raises(ValueError, match="not a whole zip archive"):
        extract_archives(tmp_path)
    put_archive(tmp_path, whole)
    extract_archives(tmp_path)
    assert (tmp_path / "words/a").read_bytes() == CONTENT
