"""A mirror of a small collection of books, and ``ptmt data`` on it."""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from helpers import serving

from ptmt_lightning.cli import main

ZIP = "blurbgenrecollectionen.zip"
TOPICS = ("Fiction", "Sea Tales", "Lighthouses", "Fog")  # a chain of four levels, the depth of the real collection


class Mirror(ThreadingHTTPServer):
    """Serves a folder and counts."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self.folder = folder
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(SimpleHTTPRequestHandler):
    server: Mirror

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        super().do_GET()


@contextmanager
def mirrored(folder: Path) -> Iterator[Mirror]:
    """A mirror of the new ``folder``, with the archive of a collection of six books."""
    folder.mkdir()
    (folder / ZIP).write_bytes(collection())
    with serving(Mirror(folder)) as server:
        yield server


def collection(count: int = 6) -> bytes:
    """The archive in its official form, always the same bytes: books to train on, but for 2 and 1 at the end."""
    topics = "".join(f"<d{level}>{topic}</d{level}>" for level, topic in enumerate(TOPICS))
    books = [
        f"<book>\n<title>The keeper, part {i}</title>\n<body>She lit the lamp {i} times.</body>\n"
        f"<topics>{topics}</topics>\n</book>\n"
        for i in range(count)
    ]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for part, rows in {"train": slice(0, -3), "dev": slice(-3, -1), "test": slice(-1, None)}.items():
            file.writestr(zipfile.ZipInfo(f"BlurbGenreCollection_EN_{part}.txt"), "".join(books[rows]))
        edges = itertools.pairwise(TOPICS)
        file.writestr(zipfile.ZipInfo("hierarchy.txt"), "".join(f"{parent}\t{child}\n" for parent, child in edges))
    return buffer.getvalue()


def ptmt(action: str, folder: Path, *more: str, name: str = "bgc") -> None:
    main(["data", action, name, "--path", str(folder), *more])
