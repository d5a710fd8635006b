"""What the terminal shows when a run has ended: its scores, and what to do with it next."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ptmt_lightning.models.saved.registry import SYSTEMS
from ptmt_lightning.run_folder.paths import RunFolder

_FIRST = ("h_f1_macro", "h_f1_micro", "h_auprc", "exact_match", "h_precision_micro", "h_recall_micro")
_LEVEL = re.compile(r"(.+)_level_(\d+)")
_ROWS = 12  # of the table, so that it and what follows stay on a screen of 24 lines
_SPLITS = {"val": "validation"}

Scores = Mapping[str, Mapping[str, float]]  # by split, then by metric


@rank_zero_only
def show(result: Mapping[str, Any], folder: RunFolder) -> None:
    """Print the scores of a finished run, where it is, and the commands that go on from it, on rank 0 only."""
    scores = {split: result[split] for split in ("test", "val") if result[split]}
    show_scores(f"{result['dataset']} / {result['model']}", scores)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(f"run: {folder.path}")
    if folder.model.is_dir():  # not of trainer.fast_dev_run
        console.print("next:", *next_commands(result["model"], folder.path), sep="\n  ")


def next_commands(system: str, run: Path) -> list[str]:
    """Return commands that go on from a finished run, its path as short as it can be said from here.

    Args:
        system: the run's model; one that is not of this package can't be used by commands.
        run: folder of the run.
    """
    run = min(run, Path(os.path.relpath(run)), key=lambda path: len(str(path)))
    commands = [f"ptmt report {shlex.quote(str(run.parent))}"]
    if system in SYSTEMS:
        model = shlex.quote(str(run / "model"))
        commands = [f"ptmt predict {model} texts.txt -o labels.jsonl", f"ptmt serve {model}", *commands]
    return commands


def show_scores(title: str, scores: Scores) -> None:
    """Print a table of metrics with one column for each split, and one row for each level.

    Those that decide come first; what does not fit on a screen is counted below.
    """
    rows, more = _rows(scores)
    table = Table(title=escape(title), title_justify="left", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("metric", overflow="fold")
    for split in scores:
        table.add_column(_SPLITS.get(split, split), justify="right", no_wrap=True)
    for index, (name, texts) in enumerate(rows):
        table.add_row(name, *texts, style="bold" if index == 0 else None)
    console = Console()
    console.print(table)
    if more:
        console.print(f"and {more} more rows in the folder's file of scores", highlight=False)


def _rows(scores: Scores) -> tuple[list[tuple[str, list[str]]], int]:
    """Return the rows that fit, each a name and a text for each split, and how many are left out."""
    known = list(dict.fromkeys(name for values in scores.values() for name in values))
    overall = [name for name in known if not _LEVEL.fullmatch(name)]
    overall.sort(key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    levels: dict[int, list[str]] = {}
    for found in filter(None, map(_LEVEL.fullmatch, known)):
        levels.setdefault(int(found[2]), []).append(found[1])
    below = [
        (f"level {level}: {' / '.join(names)}", [f"{name}_level_{level}" for name in names])
        for level, names in sorted(levels.items())
    ]
    kept = max(len(_FIRST), _ROWS - len(below))
    lines = [*((name, [name]) for name in overall[:kept]), *below]
    rows = [
        (escape(name), [" / ".join(_text(values.get(key)) for key in keys) for values in scores.values()])
        for name, keys in lines[:_ROWS]
    ]
    return rows, len(overall) + len(below) - len(rows)


def _text(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"
