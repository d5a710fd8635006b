"""What tests of several benchmarks share: names, data modules with a tokenizer, and the files of folds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conftest import tiny_source
from raw import KINDS

NAMES = list(KINDS)
FOLDED = ["wos", "bugs", "amazon"]
SPLITS = ("train", "val", "test")


def connected(data: Any) -> Any:
    """Prepared, with a vocabulary of the training texts, and batches that are lists of examples."""
    data.prepare_data()
    _, tokenizer, max_tokens = tiny_source(vocabulary_size=200).load(data.texts("train"))
    data.connect(tokenizer=tokenizer, max_tokens=max_tokens, train_collator=list, eval_collator=list)
    return data


def folds(data: Any) -> list[Path]:
    return sorted(data.cache_dir.glob("*-fold*.json"))
