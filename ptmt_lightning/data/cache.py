"""A cache of tokenised documents: an Arrow file that is made once and mapped into memory at every later start.

Its key is a digest of the raw file, the taxonomy, the tokenizer and the length at which texts are cut. A cache is
written under a temporary name and renamed when it is whole, under a lock, so that two processes never write it at once.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from filelock import FileLock
from transformers import PreTrainedTokenizerBase

from ptmt_lightning.data.document import Document, Example
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils.files import new_folder, remove_abandoned
from ptmt_lightning.utils.tokens import text_token_ids

log = logging.getLogger(__name__)

_VERSION = 2  # version of the file format; part of the key
_CHUNK = 1000  # documents tokenised at a time; the Rust tokenizer spreads them over all cores
_SCHEMA = pa.schema({"id": pa.string(), "input_ids": pa.list_(pa.int32()), "nodes": pa.list_(pa.int32())})


class TokenizedDocuments:
    """A memory-mapped cache of documents, or a selection of its rows in a given order.

    PyTorch's loader passes the ``(epoch, row)`` pairs of :mod:`.sampler` to ``__getitems__``. The attribute ``lengths``
    is ``[number of rows]``, in tokens; ``digest`` is equal for equal ids, texts and nodes of all documents, in order.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.digest: str = json.loads((folder / "checksum.json").read_text(encoding="utf-8"))["documents"]
        # As bytes, since pyarrow takes a path with accents for wrong under a locale without UTF-8.
        with pa.memory_map(os.fsencode(folder / "documents.arrow")) as file:
            table = pa.ipc.open_stream(file).read_all()
        self._ids = table.column("id")
        self._input_ids, self._nodes = _Lists(table.column("input_ids")), _Lists(table.column("nodes"))
        self._rows = np.arange(len(table))
        self.lengths = self._input_ids.lengths

    def __reduce__(self) -> tuple[Any, ...]:
        # A process that makes batches maps the file anew; pickled arrays would be copies of it.
        return _selected, (self._folder, self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def select(self, rows: npt.NDArray[np.int64]) -> TokenizedDocuments:
        """Return the given rows, in that order, as a view on the same file; no data are copied."""
        selection = object.__new__(TokenizedDocuments)
        vars(selection).update(vars(self))
        selection._rows, selection.lengths = self._rows[rows], self.lengths[rows]
        return selection

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[Example]:
        return [
            Example(row, epoch, self._input_ids[self._rows[row]], self._nodes[self._rows[row]]) for epoch, row in keys
        ]

    def ids(self, rows: Sequence[int] | npt.NDArray[np.int64] | None = None) -> list[str]:
        """Return the ids of the documents in the given rows (default: all)."""
        wanted = self._rows if rows is None else self._rows[list(rows)]
        ids: list[str] = self._ids.take(pa.array(wanted)).to_pylist()
        return ids

    def nodes(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return all pairs of a row and one of its nodes, as an array of rows and an array of nodes."""
        counts = self._nodes.lengths[self._rows]
        return np.repeat(np.arange(len(self)), counts), self._nodes.joined(self._rows)


class _Lists:
    """A column of lists of integers, without a copy: its values stay where the file is mapped."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._chunks = [(chunk.values.to_numpy(), chunk.offsets.to_numpy()) for chunk in column.chunks]
        self.lengths = np.concatenate([np.diff(offsets) for _, offsets in self._chunks]).astype(np.int64)
        self._starts = np.cumsum([0, *(len(offsets) - 1 for _, offsets in self._chunks)])  # first row of each chunk

    def __getitem__(self, row: np.int64) -> npt.NDArray[np.int32]:
        chunk = int(np.searchsorted(self._starts, row, side="right")) - 1
        values, offsets = self._chunks[chunk]
        first = row - self._starts[chunk]
        found: npt.NDArray[np.int32] = values[offsets[first] : offsets[first + 1]]
        return found

    def joined(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the lists of the rows one after the other, as one array."""
        values = np.concatenate([values[offsets[0] : offsets[-1]] for values, offsets in self._chunks], dtype=np.int64)
        counts, first = self.lengths[rows], (np.cumsum(self.lengths) - self.lengths)[rows]
        # Place of each value in the column: where its list starts, and how far within it.
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        joined: npt.NDArray[np.int64] = values[np.repeat(first, counts) + within]
        return joined


def _selected(folder: Path, rows: npt.NDArray[np.int64]) -> TokenizedDocuments:
    return TokenizedDocuments(folder).select(rows)


def tokenized(
    raw: Path,
    documents: Iterable[Document],
    *,
    taxonomy: Taxonomy,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    cache_dir: Path,
) -> TokenizedDocuments:
    """Return the tokenised documents of a raw file from its cache; make the cache if it is missing or damaged.

    Args:
        raw: the file behind ``documents``; its content is part of the key.
        documents: read only if the cache has to be made.
        taxonomy: the taxonomy of the nodes; part of the key.
        tokenizer: cuts texts into tokens; its fingerprint is part of the key.
        max_tokens: texts are cut to at most so many tokens; part of the key.
        cache_dir: the folder of all caches, made if it is missing.
    """
    folder = cache_dir / _key(raw, taxonomy, tokenizer, max_tokens)
    cache_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        problem = _problem(folder)
        if problem is not None:
            if folder.exists():
                log.warning("%s: damaged cache (%s), made again", folder, problem)
                shutil.rmtree(folder)
            remove_abandoned(cache_dir.glob("*.*.tmp"))  # of other keys, too
            _write(folder, documents, tokenizer, max_tokens)
    return TokenizedDocuments(folder)


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a digest of everything that decides how a tokenizer cuts a text into tokens."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    # Truncation and padding are those of the last call, the third adds special tokens: the tokens of a text stay.
    for key in ("truncation", "padding", "post_processor"):
        backend.pop(key, None)
    backend["added_tokens"] = [token for token in backend["added_tokens"] if not token["special"]]
    return hashlib.sha256(json.dumps(backend, sort_keys=True).encode()).hexdigest()


def _key(raw: Path, taxonomy: Taxonomy, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> str:
    with raw.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    parts = [_VERSION, content, taxonomy.edges, tokenizer_fingerprint(tokenizer), max_tokens]
    return f"{raw.name.split('.')[0]}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]}"


def _write(folder: Path, documents: Iterable[Document], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> None:
    iterator, digest = iter(documents), hashlib.sha256()
    with new_folder(folder) as temporary:
        arrow = temporary / "documents.arrow"
        with pa.OSFile(os.fsencode(arrow), "wb") as sink, pa.ipc.new_stream(sink, _SCHEMA) as writer:
            while chunk := list(itertools.islice(iterator, _CHUNK)):
                for document in chunk:
                    digest.update(json.dumps([document.id, document.text, sorted(document.nodes)]).encode())
                columns = {
                    "id": [document.id for document in chunk],
                    "input_ids": text_token_ids(tokenizer, [document.text for document in chunk], max_tokens),
                    "nodes": [list(document.nodes) for document in chunk],
                }
                writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))
        checksums = {"crc32": _crc32(arrow), "documents": digest.hexdigest()}
        (temporary / "checksum.json").write_text(json.dumps(checksums), encoding="utf-8")


def _problem(folder: Path) -> str | None:
    """Return why a cache can't be used, or None if it can.

    Reads the cache once, which takes about a second a gigabyte.
    """
    if not folder.exists():
        return "missing"
    try:
        expected = json.loads((folder / "checksum.json").read_text(encoding="utf-8"))
        is_whole = _crc32(folder / "documents.arrow") == expected["crc32"] and expected["documents"]
        return None if is_whole else "its checksum differs"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return repr(error)


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum
