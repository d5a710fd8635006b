"""Where test predictions go wrong: siblings that are confused, levels at which paths are left, worst documents."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ptmt_lightning.run_folder.finished import Run
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.taxonomy.files import STEP
from ptmt_lightning.utils.tables import read_csv

log = logging.getLogger(__name__)

_PAIRS = 10  # confused siblings that are shown
_DOCUMENTS = 10  # worst documents that are shown
_CHARACTERS = 240  # of their texts

Label = tuple[str, ...]  # the labels from the top level down to it


class Confusion(NamedTuple):
    """Two labels of one parent, of which one was predicted where the other is true."""

    parent: str  # empty for the top level
    true: str
    predicted: str
    documents: int


class Level(NamedTuple):
    """How many true labels of a level were reached, and how many of these were missed there."""

    level: int
    reached: int  # their parent was predicted, or they are of the top level
    missed: int


class Errors(NamedTuple):
    """Where the predictions of a run go wrong."""

    run: str
    confusions: list[Confusion]  # the most frequent ones first
    levels: list[Level]
    documents: list[dict[str, str]]  # the worst first: text, true, predicted


def errors_of(run: Run) -> Errors | None:
    """Return where a run's test predictions go wrong, or None where it has no predictions that can be read."""
    folder = RunFolder(run.folder)
    try:
        records = [json.loads(line) for line in folder.predictions.read_text(encoding="utf-8").splitlines()]
        pairs = [(_labels(r["labels"]), _labels(found["path"] for found in r["predicted"])) for r in records]
    except FileNotFoundError:
        return None
    except (ValueError, OSError, KeyError, TypeError) as error:
        log.warning("%s is broken (%s), and not shown", folder.predictions, error)
        return None
    return Errors(run.folder.name, _confusions(pairs), _levels(pairs), _worst(folder.mistakes))


def _labels(paths: Iterable[Sequence[str]]) -> set[Label]:
    """Return the labels of paths, each with all labels above it."""
    return {tuple(path[:depth]) for path in paths for depth in range(1, len(path) + 1)}


def _confusions(pairs: Iterable[tuple[set[Label], set[Label]]]) -> list[Confusion]:
    counts = Counter(
        (missed, wrong)
        for true, predicted in pairs
        for missed in true - predicted
        for wrong in predicted - true
        if missed[:-1] == wrong[:-1]
    )
    return [
        Confusion(STEP.join(missed[:-1]), missed[-1], wrong[-1], number)
        for (missed, wrong), number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_PAIRS]
    ]


def _levels(pairs: Iterable[tuple[set[Label], set[Label]]]) -> list[Level]:
    reached, missed = Counter[int](), Counter[int]()
    for true, predicted in pairs:
        for label in true:
            if len(label) == 1 or label[:-1] in predicted:
                reached[len(label)] += 1
                missed[len(label)] += label not in predicted
    return [Level(level, reached[level], missed[level]) for level in sorted(reached)]


def _worst(path: Path) -> list[dict[str, str]]:
    try:
        table = read_csv(path, keep_default_na=False, dtype=str)
        rows = table[["text", "true", "predicted"]].head(_DOCUMENTS).to_dict("records")
    except (FileNotFoundError, pd.errors.EmptyDataError):  # runs of versions before 0.2 have none
        return []
    except (ValueError, OSError, KeyError) as error:
        log.warning("%s is broken (%s), and not shown", path, error)
        return []
    return [{str(name): cell for name, cell in row.items()} | {"text": _shortened(row["text"])} for row in rows]


def _shortened(text: str) -> str:
    return text if len(text) <= _CHARACTERS else f"{text[:_CHARACTERS]} …"
