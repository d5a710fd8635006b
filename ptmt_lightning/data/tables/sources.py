"""Where a table comes from: a file, a folder with a file a split, a data set of a hub, or a data frame."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from ptmt_lightning.data.tables.opening import Table, format_of, frame_table, open_table
from ptmt_lightning.data.tables.options import EXPECTED_SPLITS, FORMATS, TableOptions, split_of

if TYPE_CHECKING:
    from ptmt_lightning.data.tables.hub import HubData

HUB = "hf://"
Opener = Callable[[Collection[str]], AbstractContextManager[Table]]


class Part(NamedTuple):
    """One table of a source."""

    split: str | None  # all of its documents belong to; None where rows or nothing says it
    source: str  # its name, for messages
    open: Opener  # given columns that it is sure to have


class Source(NamedTuple):
    """Tables that are one data set."""

    name: str  # for messages
    parts: list[Part]
    digest: Callable[[], str]  # of their content
    taxonomy: Path | None = None  # that lies beside them


def source_of(path: str | pd.DataFrame, options: TableOptions) -> Source:
    """Return the tables that a path means.

    Args:
        path: of a file or folder, ``hf://OWNER/NAME[/CONFIG][@REVISION]``, or a data frame.
        options: the format, where names do not tell it.

    Raises:
        ValueError: there is nothing, or a folder that does not hold a file a split; the message says what to do.
    """
    if isinstance(path, pd.DataFrame):
        part = Part(None, "data frame", lambda _columns: nullcontext(frame_table(path)))
        return Source("data frame", [part], partial(_frame_digest, path))
    if path.startswith(HUB):
        from ptmt_lightning.data.tables.hub import hub_data

        return _hub_source(path, hub_data(path))
    place = Path(path).expanduser()
    if place.is_dir():
        return _folder_source(place, options)
    if not place.exists():
        raise ValueError(
            f"{path}: no such file or folder; expected a table ({', '.join(FORMATS)}), a folder with one a split, or "
            f"{HUB}OWNER/NAME"
        )
    return Source(path, [_file_part(None, place, options)], partial(_files_digest, [place]))


def _file_part(split: str | None, path: Path, options: TableOptions) -> Part:
    return Part(split, str(path), lambda columns: open_table(path, options, columns))


def _folder_source(folder: Path, options: TableOptions) -> Source:
    found: dict[str, Path] = {}
    others = []
    for path in sorted(folder.iterdir()):
        if format_of(path, options) is None or not path.is_file() or path.name == "taxonomy.tsv":
            continue
        split = split_of(path.name.partition(".")[0])
        if split is None:
            others.append(path.name)
        elif split in found:
            raise ValueError(f"{folder}: both {found[split].name} and {path.name} are its {split} split; remove one")
        else:
            found[split] = path
    if "train" not in found:
        beside = f"; it has {', '.join(others[:5])}" if others else ""
        raise ValueError(
            f"{folder}: no file train with one of the ends {', '.join(FORMATS)}{beside}; expected a file a split, "
            "named train, val or test, or the path of one file"
        )
    taxonomy = folder / "taxonomy.tsv"
    return Source(
        str(folder),
        [_file_part(split, path, options) for split, path in found.items()],
        partial(_files_digest, list(found.values())),
        taxonomy if taxonomy.is_file() else None,
    )


def _hub_source(path: str, data: HubData) -> Source:
    # A data set of one split is not divided, whatever the hub calls it.
    whole = len(data.splits) == 1
    splits = {name: None if whole else split_of(name) for name in data.splits}
    used = [name for name in splits if whole or splits[name]]
    doubled = [split for split, count in Counter(splits[name] for name in used).items() if count > 1]
    if not used or doubled:
        raise ValueError(f"{path}: splits {', '.join(data.splits)}; {EXPECTED_SPLITS}, each once; save them as files")
    parts = [Part(splits[name], f"{path}, {name}", partial(_hub_table, data, name)) for name in used]
    return Source(path, parts, lambda: data.fingerprint)


def _hub_table(data: HubData, split: str, _columns: Collection[str]) -> AbstractContextManager[Table]:
    return nullcontext(data.table(split))


def _files_digest(paths: list[Path]) -> str:
    digests = []
    for path in paths:
        with path.open("rb") as file:
            digests.append([path.name, hashlib.file_digest(file, "sha256").hexdigest()])
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


def _frame_digest(frame: pd.DataFrame) -> str:
    digest = hashlib.sha256(repr(list(frame.columns)).encode(errors="surrogatepass"))
    for row in frame.itertuples(index=False, name=None):
        digest.update(repr(row).encode(errors="surrogatepass"))
    return digest.hexdigest()
