"""Which of the ways to give data, ``dataset=sample``, ``jsonl`` or ``table``, fits what is at a path."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ptmt_lightning.data.tables.options import FORMATS

_SAMPLE_TAXONOMIES = {  # SHA-256
    "215e3403b32eb6d6a521d6c6fd2965b223f0336fab7dde81a77dffb56f2deb7e",
    "a6476f93187f67cd36407d8095201275d26091cb69593cabd69dfdd5721ea0a5",  # of version 0.1
}


def is_sample(folder: Path) -> bool:
    """Return whether a folder holds the built-in sample: whether its taxonomy is there."""
    taxonomy = folder / "taxonomy.tsv"
    return taxonomy.is_file() and hashlib.sha256(taxonomy.read_bytes()).hexdigest() in _SAMPLE_TAXONOMIES


def fitting_dataset(path: str) -> str:
    """Return the choice of ``dataset`` for own data at a path; for a path that tells nothing, both.

    Args:
        path: of a file or folder, which may be missing, or ``hf://OWNER/NAME`` of a hub.
    """
    place = Path(path).expanduser()
    if path.startswith("hf://") or place.is_file() or _is_table(place.name):
        return "dataset=table"
    names = {file.name.removesuffix(".gz") for file in place.iterdir()} if place.is_dir() else set[str]()
    if {"train.jsonl", "val.jsonl"} <= names:
        return "dataset=jsonl"
    if any(_is_table(name) for name in names - {"taxonomy.tsv"}):
        return "dataset=table"
    return "dataset=jsonl (a folder with train.jsonl and val.jsonl) or dataset=table (a table)"


def _is_table(name: str) -> bool:
    return Path(name.lower().removesuffix(".gz")).suffix.removeprefix(".") in FORMATS
