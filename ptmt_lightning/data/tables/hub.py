"""Data sets of the Hugging Face hub as tables, through the library ``datasets``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ptmt_lightning.data.records import Record
from ptmt_lightning.data.tables.opening import Table
from ptmt_lightning.utils.hub import hub_source

_BATCH = 1000  # rows that are read at a time


class HubData(NamedTuple):
    """A data set of a hub."""

    name: str
    splits: dict[str, Any]  # datasets.Dataset by the hub's name of the split

    @property
    def fingerprint(self) -> str:
        """Equal for equal content."""
        return "-".join(f"{name}:{split._fingerprint}" for name, split in self.splits.items())

    def table(self, split: str) -> Table:
        """Return a split as a table; numbers that stand for names of labels become the names."""
        data = self.splits[split]
        decoders = {name: decoder for name, feature in data.features.items() if (decoder := _decoder(feature))}
        kept = [name for name, feature in data.features.items() if type(feature).__name__ not in ("Image", "Audio")]
        return Table(kept, self._records(data.select_columns(kept), split, decoders))

    def _records(self, data: Any, split: str, decoders: dict[str, Callable[[Any], Any]]) -> Iterator[Record]:
        number = 0
        for batch in data.iter(_BATCH):
            for cells in zip(*batch.values(), strict=True):
                number += 1
                row = dict(zip(batch, cells, strict=True))
                row |= {name: decode(row[name]) for name, decode in decoders.items()}
                yield Record(number, f"{self.name}, {split}, row {number}", row)


def hub_data(path: str) -> HubData:
    """Open a data set of the hub, downloading what is not there yet.

    Args:
        path: ``hf://OWNER/NAME``, with ``/CONFIG`` where it has several, and ``@REVISION`` for one commit or tag.

    Raises:
        ValueError: the library is missing, or there is no such data set, or the hub can't be reached.
    """
    name, _, revision = path.removeprefix("hf://").partition("@")
    parts = name.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise ValueError(f"{path}: expected hf://OWNER/NAME, hf://OWNER/NAME/CONFIG, or one of them with @REVISION")
    try:
        import datasets
    except ImportError as error:
        raise ValueError(f"{path}: needs the library datasets ({error}); pip install 'ptmt_lightning[hub]'") from None
    problem = hub_source("/".join(parts[:2])).problem
    if problem and not datasets.config.HF_HUB_OFFLINE:
        raise ValueError(
            f"{path}: the hub can't be reached ({problem}); check the network, set HF_HUB_OFFLINE=1 to take what was "
            "downloaded before, or give the path of a file"
        )
    try:
        found = datasets.load_dataset("/".join(parts[:2]), *parts[2:], revision=revision or None)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: can't be read ({reason}); check name, config and network, or give a file") from None
    return HubData(path, dict(found))


def _decoder(feature: Any) -> Callable[[Any], Any] | None:
    """Return what makes names of the numbers of a column, a label or lists of labels; None for other columns."""
    if type(feature).__name__ == "ClassLabel":
        # A negative number stands for no label.
        return lambda value: None if value is None or value < 0 else feature.int2str(value)
    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
    decode = _decoder(inner) if inner is not None else None
    return None if decode is None else lambda values: values and [decode(value) for value in values]
