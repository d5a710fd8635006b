"""Digests by which what belongs together is known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Settings of a saved model that a user may change, and what has a digest of its own.
_CHANGEABLE = {
    "thresholds",
    "decoding",
    "top_k",
    "to_leaf",
    "prune",
    "metric_classes",
    "version",
    "taxonomy_fingerprint",
    "digest",
}
# Files of a model that are read when it is opened, by the ends of their names.
_READ = (
    ".safetensors", ".safetensors.index.json", ".onnx", ".onnx.data", "openvino_model.xml", "openvino_model.bin",
    ".pt2", ".model", "config.json", "tokenizer.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt",
)  # fmt: skip


def digest(content: object) -> str:
    """Return the SHA-256 of plain content in JSON's canonical form, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def model_digests(folder: Path, settings: Mapping[str, Any], name: str) -> dict[str, str]:
    """Return a digest of each part of a saved model that decides its scores, by the name of its file.

    Args:
        folder: the saved model. Its taxonomy has a fingerprint of its own.
        settings: its settings; those that a user may change, such as ``thresholds``, do not enter.
        name: name of the file with the settings.
    """
    found = {name: digest({key: value for key, value in settings.items() if key not in _CHANGEABLE})}
    for path in sorted(folder.iterdir()):
        if path.name.endswith(_READ) and path.is_file():
            with path.open("rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def changed_files(saved: object, found: Mapping[str, str]) -> list[str]:
    """Return the names of files that were not saved so, that are missing, or that were not saved at all."""
    if not isinstance(saved, dict):
        return sorted(found)
    return sorted(name for name in saved.keys() | found.keys() if saved.get(name) != found.get(name))
