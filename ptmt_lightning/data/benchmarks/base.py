"""What the benchmarks share: they read official files into the project's own form, and make the protocol's folds.

``<path>/raw/`` holds the official files, downloaded or put there by hand. The first start reads them into
``<path>/prepared-<key>/``: JSON lines, ``taxonomy.tsv`` and ``prepared.json``. From then on they are used like any
other data. The key is a digest of the settings and of the raw files' names, sizes and times: after a change of these,
the files are read again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
from filelock import FileLock
from transformers import PreTrainedTokenizerBase

from ptmt_lightning.data.benchmarks.archives import extract_archives
from ptmt_lightning.data.benchmarks.download import Source, check_downloads, download, is_unfinished, raw_files
from ptmt_lightning.data.benchmarks.folds import (
    NUM_FOLDS,
    VALIDATION_SEED,
    Rows,
    make_fold,
    published_rows,
)
from ptmt_lightning.data.benchmarks.prepared import Labelled, PreparedWriter
from ptmt_lightning.data.cache import TokenizedDocuments
from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.data.document import SPLITS, read_documents
from ptmt_lightning.utils.checks import check_range
from ptmt_lightning.utils.files import new_folder, remove_abandoned, write_text

log = logging.getLogger(__name__)

Split = Literal["published", "folds"]

_VERSION = 2  # version of the prepared form; part of its key


class Published(NamedTuple):
    """The figures of one benchmark in the paper's Table 2, or of those that the paper has not, in HGCLR's Table 1.

    None is not published there.
    """

    documents: int
    level_sizes: tuple[int, ...] | None
    mean_characters: int | None
    train: int
    val: int
    test: int


class Raw(NamedTuple):
    """What :meth:`BenchmarkDataModule.read_raw` found among the raw files."""

    form: str  # which of the official forms it found
    documents: Mapping[str, Iterable[Labelled]]  # by split, or all of them under "all"
    dropped: Counter[str]  # documents left out, by reason; complete once all documents have been read


class BenchmarkDataModule(HTCDataModule):
    """A benchmark that is read from its official files, which are downloaded if none are there.

    Args:
        path: the folder of the benchmark; raw files are looked for and downloaded to ``raw`` in it.
        mirror: base address (``https://``, ``http://``, ``file://``) to download from instead of the official place.
        shared: see :class:`~ptmt_lightning.data.datamodule.HTCDataModule`.
    """

    name: str  # may be chosen by the user
    short_name: ClassVar[str]  # begins the names of the published files
    source: ClassVar[Source]
    published: ClassVar[Published]
    known_deviations: ClassVar[Mapping[str, tuple[int | str, str]]] = {}  # from Table 2: figure here and reason

    def __init__(self, *, path: str, mirror: str | None = None, **shared: Any) -> None:
        super().__init__(path=path, **shared)
        self.folder, self.mirror = Path(path).expanduser(), mirror

    @abstractmethod
    def read_raw(self, files: Sequence[Path]) -> Raw:
        """Find the official form among the raw files and read it.

        Raises:
            ValueError: none of the known forms is there, or a file is not as it should be; the message says where.
        """

    def only_file(self, files: Sequence[Path], *names: str) -> Path | None:
        """Return the raw file that has one of the names, or None if there is none.

        Raises:
            ValueError: there are several.
        """
        found = [path for path in files if path.name in names]
        if len(found) > 1:
            raise ValueError(f"{found[0]}: there is {found[1]} as well; keep one of the two")
        return found[0] if found else None

    def jsonl_files(self, files: Sequence[Path]) -> list[Path]:
        """Return the raw files that hold the published form, train before test; an empty list if there are none.

        Raises:
            ValueError: one of the two is missing, or a file with all documents is there beside them.
        """
        whole, train, test = (
            self.only_file(files, f"{stem}.jsonl", f"{stem}.jsonl.gz")
            for stem in ("all", f"{self.short_name}_train", f"{self.short_name}_test")
        )
        if whole and (train or test):
            raise ValueError(f"{whole}: there is {train or test} as well; keep one of the two")
        if bool(train) != bool(test):
            missing = f"{self.short_name}_{'test' if train else 'train'}.jsonl"
            raise ValueError(f"{train or test}: expected {missing} beside it")
        return [path for path in ([whole] if whole else [train, test]) if path]

    def not_found(self, files: Sequence[Path], expected: str) -> ValueError:
        """Return the error for raw files that hold none of the official forms, or several."""
        found = ", ".join(str(path.relative_to(self.folder / "raw")) for path in files[:10]) or "nothing"
        remedy = (
            f"Put the official files there, or empty the folder to download them; {self.source.page} has them"
            if self.source.files
            else f"Put them there: nothing is downloaded, because the data are licensed ({self.source.page})"
        )
        return ValueError(
            f"{self.folder / 'raw'}: expected {expected}; found {found}{', ...' if len(files) > 10 else ''}. {remedy}"
        )

    def settings(self) -> dict[str, Any]:
        """Return the settings that change the prepared documents; they are part of the key."""
        return {}

    def download(self) -> None:
        """Download missing raw files, check those that are there, and extract archives.

        Raises:
            ValueError: a file can't be downloaded, has changed since its download, or is no safe archive; or the data
                are licensed, and files are missing that only the user can put there.
        """
        raw = self.folder / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        with FileLock(raw / ".lock"):
            download(self.source, raw, mirror=self.mirror)
            extract_archives(raw)
        if not self.source.files:
            self.read_raw(raw_files(raw))  # says what is missing

    def prepare_data(self) -> None:
        """Read the raw files, once; first download them if none are there, or go on with an unfinished download.

        Raises:
            ValueError: a raw file can't be downloaded or read; the message says which and what to do.
        """
        raw = self.folder / "raw"
        downloads = not raw_files(raw) or is_unfinished(self.source, raw)
        if downloads:
            self.download()
        with suppress(FileNotFoundError):  # another process extracts archives and renames folders meanwhile
            self.path = self._prepared_path(raw_files(raw))
            if self.path.exists():
                return
        with FileLock(raw / ".lock"):
            if not downloads:  # else that was done
                check_downloads(raw)
                extract_archives(raw)
            files = raw_files(raw)
            self.path = self._prepared_path(files)
            if not self.path.exists():
                self._prepare(files)

    def _prepared_path(self, files: Sequence[Path]) -> Path:
        stats = [(str(path.relative_to(self.folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        parts = [_VERSION, type(self).__name__, self.settings(), stats]
        return self.folder / f"prepared-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]}"

    def _prepare(self, files: Sequence[Path]) -> None:
        found = self.read_raw(files)
        log.info("%s: reading %s, once", self.name, found.form)
        remove_abandoned(self.folder.glob("prepared-*.*.tmp"))  # of other settings, too
        with new_folder(self.path) as folder:
            writer = PreparedWriter(folder, found.dropped)
            for name, documents in found.documents.items():
                writer.write(name, documents)
                if not writer.sizes[name]:
                    left_out = "".join(f"; {count} left out: {reason}" for reason, count in found.dropped.items())
                    raise ValueError(f"{self.folder / 'raw'}: no document in {found.form} ({name}){left_out}")
            writer.finish(form=found.form)
        for reason, count in found.dropped.items():
            log.info("%s: %d document(s) left out: %s", self.name, count, reason)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Content of ``prepared.json``: form, documents by split, mean characters, documents left out by reason."""
        content: dict[str, Any] = json.loads((self.path / "prepared.json").read_text(encoding="utf-8"))
        return content

    @property
    def protocol(self) -> str:
        """How the splits were made, in words, for ``result.json``."""
        return "official splits"

    def split_sizes(self) -> dict[str, int]:
        """Return the number of documents of each split."""
        sizes: dict[str, int] = self.summary["documents"]
        return sizes


class FoldedDataModule(BenchmarkDataModule):
    """A benchmark of one path a document, with the publisher's test file, or divided into one of six folds.

    The publisher's ``<name>_train.jsonl`` and ``<name>_test.jsonl`` are one fixed split; :mod:`.folds` makes others. Of
    the folds of merged files most hold published test documents in training. All splits share one cache of tokens. The
    ids of a split's documents are written beside it, to ``<cache_dir>/<name>-<split>-<key>.json``.

    Args:
        split: ``published`` for the publisher's two files, ``folds`` for cross-validation; None for ``published`` where
            both files are there and no fold is given, else ``folds``.
        fold: 0 to 5; None for 0.
        val_seed: seeds the drawing of the validation documents.
        val_stratified: whether validation has the same share of each class.
        shared: see :class:`BenchmarkDataModule`.

    Raises:
        ValueError: a setting is out of its range, or a fold of the published split.
    """

    def __init__(
        self,
        *,
        split: Split | None = None,
        fold: int | None = None,
        val_seed: int = VALIDATION_SEED,
        val_stratified: bool = True,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if split is not None and split not in get_args(Split):
            raise ValueError(f"dataset.split={split!r}: expected published or folds; set dataset.split to one of these")
        if fold is not None:
            check_range("dataset.fold", fold, 0, NUM_FOLDS - 1, integer=True)
            if split == "published":
                raise ValueError(
                    f"dataset.fold={fold}: the published split has no folds; leave it out, or set dataset.split=folds"
                )
        check_range("dataset.val_seed", val_seed, 0, 2**32 - 1, integer=True)
        self.split, self.fold, self.val_seed, self.val_stratified = split, fold, val_seed, val_stratified

    @property
    def is_published(self) -> bool:
        """Whether the test split is the publisher's.

        Raises:
            ValueError: it is asked for, and its files are not there.
        """
        there = (self.path / "in_test.npy").exists()
        if self.split == "published" and not there:
            raise ValueError(
                f"dataset.split=published: expected {self.short_name}_train.jsonl and {self.short_name}_test.jsonl in "
                f"{self.folder / 'raw'}, found {self.summary['form']}; put them there, or set dataset.split=folds"
            )
        return there and self.split != "folds" and self.fold is None

    @property
    def protocol(self) -> str:
        """How the splits were made, in words, for ``result.json``."""
        test = "published test file" if self.is_published else f"fold {self.fold or 0} of {NUM_FOLDS}"
        stratified = "stratified" if self.val_stratified else "not stratified"
        return f"{test}; validation: 20 % of the rest, {stratified}, seed {self.val_seed}"

    def has_split(self, split: str) -> bool:
        """Return True: there are all three splits."""
        return True

    def split_sizes(self) -> dict[str, int]:
        """Return the number of documents of each split."""
        return {split: len(rows) for split, rows in self._split_rows.items()}

    def texts(self, split: str) -> Iterator[str]:
        """Return an iterator over the raw texts of a split."""
        wanted = np.zeros(self.summary["documents"]["all"], dtype=bool)
        wanted[self._split_rows[split]] = True
        documents = read_documents(self.path / "all.jsonl", "all", self.taxonomy)
        return (document.text for document in itertools.compress(documents, wanted))

    def _tokenized_splits(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> dict[str, TokenizedDocuments]:
        documents = self._tokenized(self.path / "all.jsonl", "all", tokenizer, max_tokens)
        return {split: documents.select(rows) for split, rows in self._split_rows.items()}

    @cached_property
    def _split_rows(self) -> dict[str, Rows]:
        """The rows of each split, ascending; row ``i`` of the prepared file has the id ``all:<i + 1>``.

        Raises:
            ValueError: the split had other documents at an earlier start.
        """
        classes = np.load(self.path / "classes.npy")
        if self.is_published:
            kind, in_test = "published", np.load(self.path / "in_test.npy")
            rows = published_rows(classes, in_test, seed=self.val_seed, stratified=self.val_stratified)
        else:
            kind = f"fold{self.fold or 0}"
            rows = make_fold(classes, self.fold or 0, seed=self.val_seed, stratified=self.val_stratified)
        if (self.val_seed, self.val_stratified) != (VALIDATION_SEED, True):
            kind += f"-val{self.val_seed}{'' if self.val_stratified else 'u'}"
        ids = {split: [f"all:{row + 1}" for row in rows[split].tolist()] for split in SPLITS}
        path = self.cache_dir / f"{self.name}-{kind}-{self.path.name.removeprefix('prepared-')}.json"
        text = json.dumps(ids)
        if not path.exists():
            self.cache_dir.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
        elif path.read_text(encoding="utf-8") != text:
            raise ValueError(
                f"{path}: the fold had other documents at an earlier start; another version of scikit-learn may divide "
                "them otherwise. Go back to the earlier version, or delete the file and don't compare with earlier runs"
            )
        return rows
