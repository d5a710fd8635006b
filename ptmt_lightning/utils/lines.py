"""Lines of text files: in the encoding that a byte-order mark names, plain or gzip, each line of bounded length."""

from __future__ import annotations

import codecs
import gzip
import io
import itertools
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TextIO

from ptmt_lightning.utils.files import check_file
from ptmt_lightning.utils.tokens import is_unicode

MAX_LINE = 2**24  # characters of a line that are read; JSON may take six for one of a text
NUL_HINT = "NUL characters, as UTF-16 does that is read as UTF-8; save the file as UTF-8"
_PEEKED = 2**16  # characters of the first line that holds anything, of which the first is looked at
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32"}
_OTHER_KINDS = {
    b"\x1f\x8b": "compressed with gzip; let its name end in .gz",
    b"PK\x03\x04": "a zip archive or an Excel file; extract it, or save it as CSV in UTF-8",
    b"PAR1": "a Parquet file; let its name end in .parquet",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file; save it as CSV or text in UTF-8",
    b"%PDF": "a PDF; save its text in UTF-8",
    b"BZh": "compressed with bzip2; decompress it",
    b"\xfd7zX": "compressed with xz; decompress it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; decompress it",
    b"7z\xbc\xaf": "a 7z archive; extract it",
}


class Lines:
    """The lines of a text file, line break included.

    A longer one than allowed is cut after one character too many, and its rest is skipped. Bytes that are not UTF-8
    become surrogates, see :func:`problem_of`.

    Args:
        file: the open file.
        source: its name, for error messages.
        longest: characters of a line that are read.
    """

    def __init__(self, file: TextIO, source: str, longest: int) -> None:
        self._file, self._source, self._longest = file, source, longest
        self._num_read = 0
        self._num_blank, self._start = 0, ""  # what peeking has read: blank lines, and the next one or its beginning

    def peek_is_array(self) -> bool:
        """Return whether the first character that is no white space opens a JSON array."""
        while (start := self._readline(_PEEKED)) and not start.strip():
            self._num_blank += start.endswith("\n")
        self._start = start
        return start.lstrip().startswith("[")

    def read(self, size: int) -> str:
        """Return what is left, up to so many characters."""
        start = "\n" * min(self._num_blank, size) + self._start
        self._num_blank, self._start = 0, ""
        with _damage_named(self._source, self._num_read):
            return start + self._file.read(size)

    def __iter__(self) -> Iterator[str]:
        yield from itertools.repeat("\n", self._num_blank)
        line, self._num_blank, self._start = self._start, 0, ""
        while line := line if line.endswith("\n") else line + self._readline(self._longest + 1 - len(line)):
            if not self.is_cut(line):
                yield line.removeprefix("\ufeff")  # of a file that was joined to another one
            else:
                yield line
                while (rest := self._readline(self._longest)) and not rest.endswith("\n"):
                    pass
            line = ""

    def is_cut(self, line: str) -> bool:
        """Return whether a line was longer than allowed."""
        return len(line) > self._longest and not line.endswith("\n")

    def _readline(self, size: int) -> str:
        with _damage_named(self._source, self._num_read):
            line = self._file.readline(size)
        self._num_read += line.endswith("\n")
        return line


@contextmanager
def open_lines(
    source: Path | str, *, longest: int | None = None, newline: str | None = "\n", encoding: str | None = None
) -> Iterator[Lines]:
    """Open a text file in the encoding that its byte-order mark names, UTF-8 without one.

    Args:
        source: the file, gzip if its name ends in ``.gz``; ``-`` for standard input.
        longest: characters of a line that are read; None for :data:`MAX_LINE`.
        newline: what ends a line; None for any of the usual line breaks.
        encoding: of the file, in place of what it says itself.

    Raises:
        ValueError: there is no such file, it is not a text file, ends early or is damaged; also while it is read.
    """
    name = str(source)
    if name != "-":
        check_file(Path(source))
    with nullcontext(sys.stdin.buffer) if name == "-" else Path(source).open("rb") as binary:
        is_zipped = name.lower().endswith(".gz")
        plain: Any = io.BufferedReader(gzip.GzipFile(fileobj=binary)) if is_zipped else binary
        with _damage_named(name, 0):
            start = plain.peek(4)[:4]
        for mark, kind in _OTHER_KINDS.items():
            if start.startswith(mark):
                raise ValueError(f"{name}: not a text file, but {kind}")
        if encoding is None or codecs.lookup(encoding).name == "utf-8":
            encoding = _MARKS.get(start) or _MARKS.get(start[:2]) or "utf-8-sig"
        errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
        yield Lines(
            io.TextIOWrapper(plain, encoding=encoding, errors=errors, newline=newline), name, longest or MAX_LINE
        )


def problem_of(line: str) -> str | None:
    """Return why a line is no text, in words that say what to do; None if it is one."""
    if "\0" in line:
        return NUL_HINT
    if is_unicode(line):
        return None
    place = next(i for i, character in enumerate(line) if "\udc80" <= character <= "\udcff")
    at = len(line[:place].encode(errors="surrogateescape")) + 1
    return f"invalid UTF-8 at byte {at} of the line; save the file as UTF-8"


@contextmanager
def _damage_named(source: str, num_lines: int) -> Iterator[None]:
    try:
        yield
    except UnicodeError as error:
        raise ValueError(f"{source}: {error}; save the file as UTF-8") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{source}: damaged or truncated gzip after line {num_lines} ({error}); copy or download the file again"
        ) from None
