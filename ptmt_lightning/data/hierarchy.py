"""The taxonomy of a data folder: the file that it has, or the tree of its documents' label paths."""

from __future__ import annotations

import logging
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from ptmt_lightning.data.document import SPLITS, read_label_paths, split_file
from ptmt_lightning.taxonomy import Taxonomy

log = logging.getLogger(__name__)


def has_taxonomy(folder: Path) -> bool:
    """Return whether a folder has a ``taxonomy.tsv``; one that can't be read is refused when it is."""
    path = folder / "taxonomy.tsv"
    return path.exists() or path.is_symlink()


def read_taxonomy(folder: Path) -> Taxonomy:
    """Return the taxonomy in ``taxonomy.tsv`` or, without that file, the tree of the label paths of all splits.

    Nodes of the tree are in the order in which the training, validation and test documents first have them.

    Raises:
        ValueError: the file or a document is not valid, or there is no file and no label.
    """
    if has_taxonomy(folder):
        return Taxonomy.from_tsv(folder / "taxonomy.tsv")
    paths: dict[tuple[str, ...], None] = {}  # as an ordered set
    num_trained = 0
    for split in SPLITS:
        if file := split_file(folder, split):
            paths.update(dict.fromkeys(read_label_paths(file)))
        if split == "train":
            num_trained = len(_nodes(paths))
    if not paths:
        raise ValueError(
            f"{folder}: no taxonomy.tsv there, and no document has a label to take the taxonomy from; add either"
        )
    taxonomy = Taxonomy.from_paths(paths, source=str(folder))
    rank_zero_only(log.info)(
        "%s: no taxonomy.tsv there; taken from the label paths: %d labels on %d levels (%s), %d of them in no "
        "training document",
        folder, len(taxonomy), taxonomy.num_levels, " / ".join(map(str, taxonomy.level_sizes)),
        len(taxonomy) - num_trained,
    )  # fmt: skip
    return taxonomy


def _nodes(paths: dict[tuple[str, ...], None]) -> set[tuple[str, ...]]:
    return {path[:end] for path in paths for end in range(1, len(path) + 1)}
