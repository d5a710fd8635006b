"""Digests by which what belongs together is known."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Settings of a saved model that a user may change, and what has a digest of its own.
_CHANGEABLE = {"thresholds", "prune", "metric_classes", "version", "taxonomy_fingerprint", "digest"}


def digest(content: object) -> str:
    """Return the SHA-256 of plain content in JSON's canonical form, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def model_digest(folder: Path, settings: Mapping[str, Any]) -> str:
    """Return a digest of what decides a saved model's scores beside its weights and its taxonomy.

    Args:
        folder: the saved model, of which ``config.json`` and ``tokenizer.json`` enter, byte by byte.
        settings: its settings; those that a user may change, such as ``thresholds``, do not enter.
    """
    files = [folder / name for name in ("config.json", "tokenizer.json")]
    return digest([
        {name: value for name, value in settings.items() if name not in _CHANGEABLE},
        [hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.exists()],
    ])  # fmt: skip
