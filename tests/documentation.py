"""The pages of the documentation, and the blocks of code on them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from conftest import ROOT_DIR

PAGES = sorted(
    path.relative_to(ROOT_DIR).as_posix()
    for path in [
        *ROOT_DIR.glob("*.md"),
        *(ROOT_DIR / "docs").rglob("*.md"),
        *(ROOT_DIR / "ptmt_lightning").rglob("*.md"),
    ]
)
_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^>]*) -->\n)?"
    r"```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    title: str | None  # name of the file that it is
    text: str
    reason: str | None  # why it can't be run here

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def read(page: str) -> str:
    """The text of a page."""
    return (ROOT_DIR / page).read_text(encoding="utf-8")


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page, in their order."""
    text = read(page)
    for found in _BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, found["language"], found["title"], found["text"], found["reason"])


def prose(page: str) -> str:
    """A page without its blocks and pieces of code."""
    return re.sub(r"`[^`\n]+`", "", re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL))


def commands(block: Block) -> list[str]:
    """The command lines of a block, joined where they go on in the next line."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
