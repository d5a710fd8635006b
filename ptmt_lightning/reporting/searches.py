"""The searches whose trials are among the runs: how many trials a system had, and where the best one lies."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from ptmt_lightning.reporting.report import Cells
from ptmt_lightning.run_folder.finished import Run
from ptmt_lightning.run_folder.paths import SEARCH_RESULTS

log = logging.getLogger(__name__)


class Search(NamedTuple):
    """A search, as it is known from its folder."""

    dataset: str
    systems: str  # of its trials
    study: str
    trials: int  # failed and pruned ones included
    complete: int
    edges: dict[str, str] | None  # settings whose best value is the ``lowest`` or ``highest`` of its range; None of old


def find_searches(runs: Sequence[Run]) -> list[Search]:
    """Return the searches that have trials among the runs; a broken one is warned of and left out."""
    folders: dict[Path, list[Run]] = {}
    for run in runs:
        folders.setdefault(run.folder.parent, []).append(run)
    found = []
    for folder, trials in folders.items():
        path = folder / SEARCH_RESULTS
        if path.exists():
            try:
                found.append(_read(path, trials))
            except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
                log.warning("%s is broken (%s), and its search not shown", path, " ".join(str(error).split()))
    return sorted(found, key=lambda search: search[:3])


def _read(path: Path, trials: Sequence[Run]) -> Search:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    dataset, systems = (", ".join(sorted({trial.result[key] for trial in trials})) for key in ("dataset", "model"))
    states = content["trials"]
    edges = {str(key): str(edge) for key, edge in content["at_edge"].items()} if "at_edge" in content else None
    return Search(dataset, systems, str(content["study"]), sum(states.values()), states.get("complete", 0), edges)


def cells(found: Sequence[Search]) -> Cells:
    """Return the searches as a table, a row each."""
    headings = ["dataset", "system", "search", "trials", "complete", "best at an end of its range"]
    texts = [[*search[:3], str(search.trials), str(search.complete), _edges(search)] for search in found]
    return Cells(headings, texts, [[False] * len(headings)] * len(found))


def _edges(search: Search) -> str:
    if search.edges is None:
        return "not known"
    return ", ".join(f"{key} ({edge})" for key, edge in search.edges.items()) or "none"
