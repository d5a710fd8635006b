"""Lines of text files of any encoding, and what is said of files that are none."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path

import pytest

from ptmt_lightning.utils.files import read_json_object
from ptmt_lightning.utils.lines import open_lines, problem_of

CONTENT = "Straße\n日本\n"
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


def lines_of(path: Path, **options: int) -> list[str]:
    with open_lines(path, **options) as lines:  # type: ignore[arg-type]
        return list(lines)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("zipped", [False, True])
def test_the_byte_order_mark_tells_the_encoding(tmp_path: Path, encoding: str, zipped: bool) -> None:
    mark = "\ufeff" if encoding.endswith(("le", "be")) else ""
    content = (mark + CONTENT).encode(encoding)
    path = tmp_path / ("in.txt.gz" if zipped else "in.txt")
    path.write_bytes(gzip.compress(content) if zipped else content)
    assert lines_of(path) == ["Straße\n", "日本\n"]


def test_marks_of_files_that_were_joined_go(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes("a\n".encode("utf-8-sig") * 2)
    assert lines_of(tmp_path / "in.txt") == ["a\n", "a\n"]


@pytest.mark.parametrize(
    ("content", "name", "problem"),
    [
        (
            gzip.compress(b"a\n", mtime=0),
            "in.txt",
            "not a text file, but compressed with gzip; let its name end in .gz",
        ),
        (
            b"PK\x03\x04...",
            "in.csv",
            "not a text file, but a zip archive or an Excel file; extract it, or save",
        ),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1",
            "in.csv",
            "not a text file, but an old Excel or Word file; save it as",
        ),
        (b"%PDF-1.7\n", "in.txt", "not a text file, but a PDF; save its text in UTF-8"),
        (b"BZh91AY", "in.jsonl", "not a text file, but compressed with bzip2; decompress it"),
        (b"\xfd7zXZ\0", "in.txt", "not a text file, but compressed with xz; decompress it"),
        (b"\x28\xb5\x2f\xfd\x04", "in.jsonl", "not a text file, but compressed with zstd; decompress it"),
        (b"PAR1...", "in.jsonl", "not a text file, but a Parquet file; let its name end in .parquet"),
        (b"a\n", "in.gz", "damaged or truncated gzip after line 0 (Not a gzipped file"),
        (gzip.compress(b"a\nb\n", mtime=0)[:-9], "in.gz", "damaged or truncated gzip after line"),
        (
            b"\xff\xfea\x00\n",
            "in.txt",
            "'utf-16",
        ),
    ],
)
def test_what_is_no_text_is_one_line_with_a_remedy(tmp_path: Path, content: bytes, name: str, problem: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{tmp_path / name}: {problem}')}[^\n]*$"):
        lines_of(tmp_path / name)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"a\n", None),
        ("a\n".encode("utf-16-le"), "NUL characters, as UTF-16 does that is read as UTF-8; save the file as UTF-8"),
        ("a\n".encode("utf-32-be"), "NUL characters, as UTF-16 does that is read as UTF-8; save the file as UTF-8"),
        ("é Straße\n".encode("latin-1"), "invalid UTF-8 at byte 1 of the line; save the file as UTF-8"),
        ("日本 “a”\n".encode() + "“".encode("cp1252"), "invalid UTF-8 at byte 16 of the line; save the file as UTF-8"),
    ],
)
def test_the_problem_of_a_line_says_what_to_do(line: bytes, problem: str | None) -> None:
    assert problem_of(line.decode(errors="surrogateescape")) == problem


def test_a_long_line_is_cut_and_the_next_one_read(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("x" * 25 + "\n" + "y" * 10 + "\n" + "z" * 11)
    with open_lines(tmp_path / "in.txt", longest=10) as lines:
        assert [(len(line), lines.is_cut(line)) for line in lines] == [(11, True), (11, False), (11, True)]


def test_many_bytes_of_few_are_read_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gzip of zeros holds a thousand times its size, without a line break."""
    with gzip.open(tmp_path / "zeros.gz", "wb", compresslevel=1) as file:
        for _ in range(32):
            file.write(bytes(2**20))
    assert (tmp_path / "zeros.gz").stat().st_size < 2**18
    with open_lines(tmp_path / "zeros.gz", longest=1000) as lines:
        assert [len(line) for line in lines] == [1001]


def test_a_folder_a_dead_link_and_nothing_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "link.txt").symlink_to("gone")
    for name, problem in {
        "folder.txt": "a folder; expected a file",
        "link.txt": "a link to 'gone', which is not there; expected a file",
        "none.txt": "no such file; expected a file",
        "folder.txt/../none/in.txt": "no such file",
    }.items():
        with pytest.raises(ValueError, match=f"^{re.escape(f'{tmp_path / name}: {problem}')}"):
            lines_of(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "in.txt").touch(mode=0o000)
    with pytest.raises(ValueError, match=r"in\.txt: no permission to read it; ask its owner for it, or copy it$"):
        lines_of(tmp_path / "in.txt")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not a JSON file (Expecting value"),
        (b"\xff{", "not a JSON file ('utf-8' codec can't decode"),
        (b'{"a": ' + b"[" * 100_000, "not a JSON file (maximum recursion depth exceeded"),
        (b'{"a": ' + b"1" * 5000 + b"}", "not a JSON file (Exceeds the limit (4300 digits)"),
        (b"null", "expected a JSON object, got NoneType; restore it, or download it again"),
        (b" " * 101, "more than 100 bytes, expected a JSON file of a model; restore it"),
    ],
)
def test_a_broken_json_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, problem: str
) -> None:
    monkeypatch.setattr("ptmt_lightning.utils.files._MAX_JSON", 100 if content.startswith(b" ") else 2**28)
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{tmp_path}/a.json: {problem}')}[^\n]*$"):
        read_json_object(tmp_path / "a.json")
