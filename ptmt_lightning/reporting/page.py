"""Runs side by side as one HTML file that needs no network: what was found first, then pictures, then every run."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from ptmt_lightning.reporting.differences import TESTS
from ptmt_lightning.reporting.errors import errors_of
from ptmt_lightning.reporting.findings import COSTS, MOST_COMPARED, Finding, findings, interval
from ptmt_lightning.reporting.panels import MOST_DRAWN, dashed, panels
from ptmt_lightning.reporting.report import scored_runs
from ptmt_lightning.reporting.run_rows import best_two, run_rows
from ptmt_lightning.reporting.searches import cells, find_searches
from ptmt_lightning.run_folder.finished import Run
from ptmt_lightning.utils.plots import COLOURS, MARKERS, looks

_GLYPHS = dict(zip(MARKERS, "●■◆▲▼✚✖★", strict=True))
_HOLLOW = dict(zip(MARKERS, "○□◇△▽✛✕☆", strict=True))
_SVG_DASHES = {"-": "", "--": "7 4", ":": "2 3", "-.": "8 3 2 3"}


def page(
    runs: Sequence[Run],
    *,
    metrics: Sequence[str],
    split: str,
    baseline: str | None = None,
    left_out: Sequence[str] = (),
) -> str:
    """Return an HTML page that compares runs.

    Args:
        runs: finished runs; those without a score on the split are left out.
        metrics: the metrics in tables; the first one is compared and drawn.
        split: ``val`` or ``test``.
        baseline: ``NAME=VALUE,...`` of the configuration to compare with; None for the best of another system than
            the winner, on each data set.
        left_out: lines about folders that are not finished runs.

    Raises:
        ValueError: no run has a score on that split, a metric is unknown, or the baseline is not one configuration.
    """
    scored = scored_runs(runs, metrics, split)
    found = findings(scored, metric=metrics[0], split=split, baseline=baseline)
    rows, label_lists = run_rows(found, metrics, split)
    systems = [one.system for finding in found for one in finding.configurations]
    look = looks(sorted(systems))
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"interval": interval, "number": _number}
    return environment.from_string(_text("page.html")).render(
        title=_title(len(scored), len(look), found),
        parts=[_part(finding, rows, look) for finding in found],
        rows=rows,
        metrics=metrics,
        split=split,
        costs=COSTS,
        tests=TESTS,
        colours=len(COLOURS),
        systems={system: (_colour(colour), _GLYPHS[marker]) for system, (colour, marker) in look.items()},
        most={"drawn": MOST_DRAWN, "compared": MOST_COMPARED},
        picked=best_two(rows, metrics[0]),
        compare=[{key: row[key] for key in ("run", "settings", "labels", "label_f1")} for row in rows],
        label_lists=label_lists,
        searches=cells(found_searches) if (found_searches := find_searches(runs)) else None,
        left_out=left_out,
        css=Markup(_text("page.css")),
        js=Markup(_text("page.js")),
    )


def _part(finding: Finding, rows: Sequence[dict[str, Any]], look: dict[str, tuple[str, str]]) -> dict[str, Any]:
    """Return what the page shows of a data set."""
    by_name: dict[str, list[dict[str, Any]]] = {one.name: [] for one in finding.configurations}
    for row in rows:
        if row["dataset"] == finding.dataset:
            by_name[row["configuration"]].append(row)
    legend = [
        (
            one.name,
            _colour(look[one.system][0]),
            (_HOLLOW if _SVG_DASHES[dash] else _GLYPHS)[look[one.system][1]],
            _SVG_DASHES[dash],
        )
        for one, dash in dashed(finding.configurations[:MOST_DRAWN])
    ]
    drawn = [(Markup(panel.svg), panel.caption) for panel in panels(finding, by_name, look)]
    errors = errors_of(finding.configurations[0].runs[0]) if finding.split == "test" else None
    return {
        "finding": finding, "sentences": finding.sentences(), "legend": legend, "panels": drawn, "errors": errors,
    }  # fmt: skip


def _title(num_runs: int, num_systems: int, found: Sequence[Finding]) -> str:
    def count(number: int, thing: str) -> str:
        return f"{number} {thing}" + ("" if number == 1 else "s")

    datasets = count(len(found), "data set")
    return f"{count(num_systems, 'system')} on {datasets}, {count(num_runs, 'run')}"


def _colour(colour: str) -> str:
    return f"var(--c{COLOURS.index(colour)})"


def _number(value: float | None, form: str) -> str:
    """Return a number as text, and a dash for what is not known."""
    return "-" if value is None or value != value else f"{value:{form}}"


def _text(name: str) -> str:
    return (files("ptmt_lightning.reporting") / name).read_text(encoding="utf-8")
