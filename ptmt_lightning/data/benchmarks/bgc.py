"""Blurb Genre Collection, English (Aly et al. 2019): book blurbs, several genre paths each, official splits.

The files are not XML documents: they hold one ``<book>`` element after the other, and ampersands are not escaped. A
book's topics are an unordered set on each level; ``hierarchy.txt`` says which topic belongs under which.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from html.entities import html5
from pathlib import Path

from ptmt_lightning.data.benchmarks.base import BenchmarkDataModule, Published, Raw
from ptmt_lightning.data.benchmarks.download import Source
from ptmt_lightning.data.benchmarks.prepared import Labelled, node_name
from ptmt_lightning.data.benchmarks.topic_sets import topic_paths
from ptmt_lightning.data.document import read_lines
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.edges import ROOT

_FILES = {
    split: f"BlurbGenreCollection_EN_{part}.txt"
    for split, part in {"train": "train", "val": "dev", "test": "test"}.items()
}
_TOPIC = re.compile(r"<d(\d+)>(.*?)</d\1>", re.DOTALL)


class BGCDataModule(BenchmarkDataModule):
    """The Blurb Genre Collection; see :class:`~ptmt_lightning.data.benchmarks.base.BenchmarkDataModule`."""

    short_name = "bgc"
    source = Source(
        page="https://www.inf.uni-hamburg.de/en/inst/ab/lt/resources/data/blurb-genre-collection.html",
        files={"blurbgenrecollectionen.zip": "https://fiona.uni-hamburg.de/ca89b3cf/blurbgenrecollectionen.zip"},
    )
    published = Published(91_894, (7, 46, 77, 16), 996, 58_715, 14_785, 18_394)

    def read_raw(self, files: Sequence[Path]) -> Raw:
        """Read the three official files of books, and the taxonomy in ``hierarchy.txt``."""
        found = {split: self.only_file(files, name) for split, name in _FILES.items()}
        hierarchy_file = self.only_file(files, "hierarchy.txt")
        parts = {split: path for split, path in found.items() if path is not None}
        if len(parts) < len(_FILES) or hierarchy_file is None:
            raise self.not_found(
                files, f"blurbgenrecollectionen.zip, or {', '.join(_FILES.values())} and hierarchy.txt"
            )
        hierarchy = read_hierarchy(hierarchy_file)
        documents = {split: read_books(path, hierarchy) for split, path in parts.items()}
        return Raw(f"the books in {parts['train'].parent}", documents, Counter())


def read_hierarchy(path: Path) -> Taxonomy:
    """Return the taxonomy in ``hierarchy.txt``.

    Each line is an edge, ``parent<TAB>child``, or a single name: that of a top node without children.

    Raises:
        ValueError: a line is neither; the message names it.
    """
    edges: dict[tuple[str, str], None] = {}
    tops: dict[str, None] = {}
    for where, line in read_lines(path):
        if not line.strip():
            continue
        names = [node_name(_unescaped(field)) for field in line.split("\t")]
        if not all(names) or len(names) > 2:
            raise ValueError(f"{where}: expected 'parent<TAB>child' or a single name, got {line.rstrip()!r}")
        tops[names[0]] = None
        if len(names) == 2:
            edges[names[0], names[1]] = None
    children = {child for _, child in edges}
    return Taxonomy([*edges, *((ROOT, top) for top in tops if top not in children)], source=f"{path}, edges")


def read_books(path: Path, hierarchy: Taxonomy) -> Iterator[Labelled]:
    """Yield the books of one file; the text of a book is its title, a full stop and the blurb.

    Raises:
        ValueError: a book lacks an element, a topic or its end, or has a topic that the hierarchy does not know; the
            message names the line at which the book begins.
    """
    book: list[str] = []
    start = f"{path}:1"
    for where, line in read_lines(path):
        if not book and not line.strip():
            continue
        if line.lstrip().startswith("<book") != (not book):
            expected = "the rest of a book up to '</book>'" if book else "'<book ...>'"
            raise ValueError(f"{where}: expected {expected}, got {line.strip()[:60]!r}; fetch the file again")
        if not book:
            start = where
        book.append(line)
        if line.rstrip().endswith("</book>"):
            yield _document("".join(book), start, hierarchy)
            book = []
    if book:
        raise ValueError(f"{start}: no '</book>' for this book up to the end; the file is cut off, fetch it again")


def _document(book: str, where: str, hierarchy: Taxonomy) -> Labelled:
    if book.count("<book date=") > 1 or book.count("</book>") > 1:
        raise ValueError(f"{where}: another book begins within this one; expected each on lines of its own")
    title, body, topics = (_element(book, name, where) for name in ("title", "body", "topics"))
    names = [node_name(_unescaped(topic)) for _, topic in _TOPIC.findall(topics)]
    if rest := _TOPIC.sub("", topics).strip():
        raise ValueError(f"{where}: {rest[:60]!r} among the topics; expected elements such as <d0>Fiction</d0>")
    if not names:
        raise ValueError(f"{where}: no topic; expected at least one in <topics>, such as <d0>Fiction</d0>")
    title, body = _unescaped(title).strip(), _unescaped(body).strip()
    paths = topic_paths(names, hierarchy, where, "hierarchy.txt")
    return Labelled(f"{title}. {body}" if title or body else "", paths, where)


def _unescaped(text: str) -> str:
    # Ampersands are not escaped in these files, so only what ends in a semicolon is an entity.
    def character(entity: re.Match[str]) -> str:
        return html.unescape(entity[0]) if entity[1].startswith("#") else html5.get(entity[1], entity[0])

    return re.sub(r"&(#?\w+;)", character, text)


def _element(book: str, name: str, where: str) -> str:
    found = re.search(f"<{name}>(.*?)</{name}>", book, re.DOTALL)
    if not found:
        raise ValueError(f"{where}: this book has no <{name}> element; fetch the file again")
    return found[1]
