"""Conversion of tables into the project's own form: JSON lines of each split, and ``taxonomy.tsv``.

Documents are read once, one after the other, into one file; of each, only a digest of its text and the numbers of its
label paths are kept in memory. Then the lines are dealt out to the splits.
"""

from __future__ import annotations

import json
import shutil
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ptmt_lightning.data.document import SPLITS
from ptmt_lightning.data.tables.annotations import annotated
from ptmt_lightning.data.tables.cells import Cells, is_empty
from ptmt_lightning.data.tables.columns import Columns, resolve, wanted
from ptmt_lightning.data.tables.options import EXPECTED_SPLITS, TableOptions, split_of
from ptmt_lightning.data.tables.sources import Part, Source
from ptmt_lightning.data.tables.splits import draw, text_key
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils.checks import shortened
from ptmt_lightning.utils.files import new_folder, write_json
from ptmt_lightning.utils.lines import MAX_LINE

SUMMARY = "table.json"


def convert(source: Source, options: TableOptions, folder: Path) -> list[str]:
    """Write ``folder`` from a table; after an error nothing is left of it.

    Args:
        source: the table, or one a split.
        options: how it is read.
        folder: not there yet.

    Returns:
        What the user should know, a sentence a line; it is kept in the folder, too, see :func:`said_of`.

    Raises:
        ValueError: the table can't be used; the message names file, row, column and value, and what to do.
    """
    with new_folder(folder) as temporary:
        conversion = _Conversion(source, options, temporary)
        conversion.read()
        conversion.write_splits()
        conversion.write_taxonomy()
        said = conversion.said()
        write_json(temporary / SUMMARY, {"said": said})
    return said


def said_of(folder: Path) -> list[str]:
    """Return the sentences of :func:`convert` on a folder that it wrote."""
    said: list[str] = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["said"]
    return said


class _Document(NamedTuple):
    text: str
    paths: list[tuple[str, ...]]
    split: str | None


class _Conversion:
    def __init__(self, source: Source, options: TableOptions, folder: Path) -> None:
        self._source, self._options, self._folder = source, options, folder
        self._notes: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._cells = Cells(options, self._notes)
        self._columns = ""  # which are read, as a sentence
        self._paths: dict[tuple[str, ...], int] = {}
        self._keys, self._splits = array("Q"), array("b")
        self._labels: list[tuple[int, ...]] = []
        self._known: dict[tuple[int, ...], tuple[int, ...]] = {}  # equal ones in _labels are one object
        self._drawn: list[str] = []
        self._sizes: dict[str, int] = {}
        given = options.taxonomy and Path(options.taxonomy).expanduser()
        self._taxonomy_file = given or source.taxonomy
        self._taxonomy = Taxonomy.from_tsv(self._taxonomy_file) if self._taxonomy_file else None

    # ---- first pass ----

    def read(self) -> None:
        """Write all documents to one file.

        Raises:
            ValueError: a row can't be used, none is left, or none has a label.
        """
        first_problem, num_problems = "", 0
        with (self._folder / "all.jsonl").open("w", encoding="utf-8") as file:
            for part in self._source.parts:
                for where, document in self._documents(part):
                    if isinstance(document, str):
                        first_problem = first_problem or f"{where}: {document}"
                        num_problems += 1
                    else:
                        file.write(self._line(where, document))
                        self._splits.append(SPLITS.index(document.split) if document.split else -1)
        if num_problems and not self._options.skip_bad_rows:
            others = f"; {num_problems - 1:,} more row(s) are bad" if num_problems > 1 else ""
            raise ValueError(f"{first_problem}{others}; {self._options.named('skip_bad_rows')} leaves such rows out")
        if num_problems:
            self._left_out[f"unusable, the first: {first_problem}"] = num_problems
        if not self._labels:
            why = "".join(f"; {count:,} left out: {reason}" for reason, count in self._left_out.items())
            raise ValueError(f"{self._source.name}: no document; expected a row a document below the header{why}")
        if not self._paths:
            raise ValueError(
                f"{self._source.name}: none of its {len(self._labels):,} document(s) has a label ({self._columns}); "
                f"set {self._options.named('levels')} or {self._options.named('paths')} to other columns"
            )

    def _documents(self, part: Part) -> Iterator[tuple[str, _Document | str]]:
        """Yield place and content of each row, or what is wrong with it."""
        with part.open(wanted(self._options)) as opened:
            table = annotated(opened, self._options, self._left_out)
            columns = resolve(table.names, self._options, part.source, table.remark)
            self._columns = columns.sentence(self._options) + (f"; columns{table.remark}" if table.remark else "")
            for record in table.records:
                if record.error:
                    yield record.where, f"{record.error}; correct or delete it"
                elif not isinstance(record.content, dict):
                    shown = shortened(repr(record.content), 80)
                    yield record.where, f"{shown}: expected an object with a key for each column; correct or delete it"
                else:
                    row = {key.strip(): value for key, value in record.content.items()}
                    try:
                        yield record.where, self._document(row, columns, part.split)
                    except ValueError as error:
                        yield record.where, str(error)

    def _document(self, row: Mapping[str, Any], columns: Columns, split: str | None) -> _Document:
        text = self._cells.text(row, columns.text)
        if len(text) > MAX_LINE // 2:
            raise ValueError(f"column {columns.text[0]!r}: a text of {len(text):,} characters; shorten or delete it")
        if columns.paths is None:
            paths = self._cells.path_of_levels(row, columns.levels)
        else:
            paths = self._cells.paths(row.get(columns.paths), columns.paths)
        if columns.split is not None:
            value = row.get(columns.split)
            split = None if is_empty(value) else split_of(str(value))
            if split is None:
                raise ValueError(f"column {columns.split!r}: {shortened(repr(value), 80)}: {EXPECTED_SPLITS}")
        if self._taxonomy is not None:
            new = [path for path in paths if path not in self._paths]
            try:
                self._taxonomy.encode([list(path) for path in new])
            except ValueError as error:
                raise ValueError(f"{error}; correct the labels, or add the path to {self._taxonomy_file}") from None
        return _Document(text, paths, split)

    def _line(self, where: str, document: _Document) -> str:
        self._keys.append(text_key(document.text))
        labels = tuple(self._paths.setdefault(path, len(self._paths)) for path in document.paths)
        self._labels.append(self._known.setdefault(labels, labels))
        record = {"text": document.text, "labels": document.paths, "from": Path(where).name}
        return json.dumps(record, ensure_ascii=False) + "\n"

    # ---- second pass ----

    def write_splits(self) -> None:
        """Deal the documents out to the splits, of which missing ones are drawn from those to train on.

        Raises:
            ValueError: there are too few documents, or none to train on.
        """
        splits = self._assigned()
        files = {split: (self._folder / f"{split}.jsonl").open("w", encoding="utf-8") for split in SPLITS}
        whole = self._folder / "all.jsonl"
        try:
            with whole.open(encoding="utf-8", newline="\n") as lines:
                for line, split in zip(lines, splits.tolist(), strict=True):
                    files[SPLITS[split]].write(line)
        finally:
            for file in files.values():
                file.close()
        whole.unlink()
        self._sizes = {split: int((splits == index).sum()) for index, split in enumerate(SPLITS)}
        for split, size in self._sizes.items():
            if not size:
                (self._folder / f"{split}.jsonl").unlink()

    def _assigned(self) -> npt.NDArray[np.int8]:
        """Return the index of each document's split."""
        splits = np.array(self._splits, dtype=np.int8)
        splits[splits < 0] = 0
        if not (splits == 0).any():
            raise ValueError(f"{self._source.name}: no document to train on; name the split of some of them train")
        shares = {split: getattr(self._options, f"{split}_share") for split in SPLITS[1:]}
        missing = {
            s: share for i, (s, share) in enumerate(shares.items(), start=1) if share and not (splits == i).any()
        }
        if missing:
            pool = np.flatnonzero(splits == 0)
            labels = [self._labels[row] for row in pool]
            try:
                drawn = draw(
                    np.array(self._keys, dtype=np.uint64)[pool],
                    labels, list(self._paths), missing, self._options.split_seed,
                )  # fmt: skip
            except ValueError as error:
                named = " and ".join(self._options.named(f"{split}_share") for split in missing)
                raise ValueError(
                    f"{self._source.name}: {error}; add documents, give the splits in a column or as files, or "
                    f"set {named}"
                ) from None
            for split, chosen in drawn.items():
                splits[pool[chosen]] = SPLITS.index(split)
        self._drawn = list(missing)
        return splits

    def write_taxonomy(self) -> None:
        """Write the taxonomy that the user gave, or that of all paths, in alphabetical order."""
        if self._taxonomy_file is not None:
            shutil.copyfile(self._taxonomy_file, self._folder / "taxonomy.tsv")
        else:
            self._taxonomy = Taxonomy.from_paths(sorted(self._paths), source=self._source.name)
            self._taxonomy.to_tsv(self._folder / "taxonomy.tsv")

    def said(self) -> list[str]:
        """Return what was assumed, read, left out and drawn."""
        assert self._taxonomy is not None
        name = self._source.name
        unlabelled = sum(not found for found in self._labels)
        sizes = ", ".join(f"{split} {size:,}" for split, size in self._sizes.items())
        seed = f"{self._options.named('split_seed')}={self._options.split_seed}"
        drawn = f" ({' and '.join(self._drawn)} drawn with {seed})" if self._drawn else ""
        levels = " / ".join(map(str, self._taxonomy.level_sizes))
        lines = [
            f"{name}: {self._columns}",
            f"{name}: {len(self._labels):,} document(s), {levels} labels a level; {sizes}{drawn}",
        ]
        if unlabelled:
            lines.append(f"{name}: {unlabelled:,} document(s) without a label, kept as such")
        lines += [f"{name}: {count:,} x {note}" for note, count in self._notes.items()]
        return lines + [f"{name}: {count:,} row(s) {reason}" for reason, count in self._left_out.items()]
