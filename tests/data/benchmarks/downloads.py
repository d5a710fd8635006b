"""Downloads of one small file from a host on this machine, and what they leave."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers import serving
from http_server import Host

from ptmt_lightning.data.benchmarks.download import Source, download

PAGE = "https://page.example/words"
CONTENT = random.Random(0).randbytes(3000)
OTHER = random.Random(1).randbytes(2500)


@contextmanager
def serving_words() -> Iterator[Host]:
    """A host of ``words.bin`` for the time of a ``with`` block."""
    with serving(Host()) as host:
        host.files["words.bin"] = CONTENT
        yield host


def source(host: Host, *names: str) -> Source:
    return Source(PAGE, {name: f"{host.url}/{name}" for name in names or ("words.bin",)})


def fetch(host: Host, folder: Path, *names: str, mirror: str | None = None) -> None:
    download(source(host, *names), folder, mirror=mirror, backoff=0.01)


def by_hand(url: str, problem: str, folder: Path, name: str = "words.bin") -> str:
    """The whole message of a file that did not come, as a pattern."""
    message = f"{url}: {problem}. Try again later, or open {PAGE}, fetch {name} by hand, put it into {str(folder)!r} "
    return f"^{re.escape(message + 'and repeat the command')}$"


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


def put_part(url: str, folder: Path, content: bytes, of: bytes) -> None:
    """What a download from ``url`` leaves that broke off; ``content`` is the beginning ``of`` a file."""
    part = folder / f"{url.rpartition('/')[2]}.part"
    folder.mkdir(parents=True, exist_ok=True)
    part.write_bytes(content)
    part.with_name(f"{part.name}.etag").write_text(f"{url}\n{etag(of)}")


def assert_whole(folder: Path, content: bytes = CONTENT) -> None:
    """The file and its record are right, and nothing else is there."""
    assert (folder / "words.bin").read_bytes() == content
    assert listing(folder) == {"words.bin", "downloads.json"}
    record = json.loads((folder / "downloads.json").read_text())["words.bin"]
    assert (record["bytes"], record["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
