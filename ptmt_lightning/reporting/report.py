"""Tables over runs: one row for each configuration, with mean and deviation over its seeds."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ptmt_lightning.reporting.baseline import against
from ptmt_lightning.reporting.differences import TESTS, Difference, differences
from ptmt_lightning.reporting.significance import METRICS
from ptmt_lightning.run_folder.finished import Run, differing, headings

log = logging.getLogger(__name__)

HEADLINE_METRICS = ("h_f1_macro", "h_f1_micro", "h_auprc")


def table(
    runs: Sequence[Run], *, metrics: Sequence[str] = HEADLINE_METRICS, split: str = "test", baseline: str | None = None
) -> pd.DataFrame:
    """Return a table with one row for each configuration, the best first within each data set.

    Columns: the settings that differ, ``runs``, ``<metric>_mean`` and ``<metric>_std`` (sample deviation, NaN of a
    single run), ``fit_minutes``; with a baseline ``difference`` of the first metric's means, and for each test of
    :data:`~ptmt_lightning.reporting.differences.TESTS` the fields of
    :class:`~ptmt_lightning.reporting.significance.Comparison` with the test's name before them, such as
    ``both_p_holm``; NaN where a test could not be made.

    Args:
        runs: finished runs; those without a score on the split are left out.
        metrics: the metrics to show; the first one orders the rows.
        split: ``val`` or ``test``.
        baseline: ``NAME=VALUE,...``, settings that differ, which one configuration of each data set has.

    Raises:
        ValueError: no run has a score on that split, a metric is unknown, or the baseline is not one configuration.
    """
    scored = scored_runs(runs, metrics, split)
    keys, groups = configurations(scored)
    figures = {values: _figures(members, metrics, split) for values, members in groups.items()}
    if baseline is not None:
        check_baseline(metrics[0], split)
        bases, mean = against(keys, groups, baseline), f"{metrics[0]}_mean"
        for values, difference in differences(groups, bases, metrics[0]).items():
            lead = figures[values][mean] - figures[bases[values]][mean]
            figures[values] |= {"difference": lead, **_compared(difference)}
    rows = pd.DataFrame([dict(zip(keys, values, strict=True)) | figures[values] for values in groups])
    by, ascending = [f"{metrics[0]}_mean"], [False]
    if "dataset.name" in keys:
        by, ascending = ["dataset.name", *by], [True, *ascending]
    return rows.sort_values(by, ascending=ascending, ignore_index=True)


def scored_runs(runs: Sequence[Run], metrics: Sequence[str], split: str) -> list[Run]:
    """Return the runs that have scores on a split; what of them lacks a metric is warned of.

    Raises:
        ValueError: no run has a score on that split, or a metric is unknown.
    """
    scored = [run for run in runs if run.result[split]]
    if not scored:
        raise ValueError(f"--split {split}: none of the {len(runs)} runs has scores there; choose the other one")
    known = dict.fromkeys(name for run in scored for name in run.result[split])
    for metric in metrics:
        if metric not in known:
            raise ValueError(f"--metrics {metric}: no such metric; known: {', '.join(known)}")
    for run in scored:
        scores = {metric: run.result[split].get(metric) for metric in metrics}
        if lacking := [metric for metric, score in scores.items() if score is None or not math.isfinite(score)]:
            log.warning("%s has no %s, and does not count there", run.folder, ", ".join(lacking))
    return scored


def check_baseline(metric: str, split: str) -> None:
    """Refuse a comparison that needs more than the predictions that runs leave.

    Raises:
        ValueError: the metric can't be computed from predictions, or none are saved of the split.
    """
    if split != "test":
        raise ValueError(f"--baseline with --split {split}: predictions are saved of the test split alone")
    if metric not in METRICS:
        known = " or ".join(METRICS)
        raise ValueError(f"--baseline: {metric} can't be had from saved predictions; name {known} first in --metrics")


def _compared(difference: Difference) -> dict[str, float]:
    """Return the columns of a difference; none of tests that could not be made."""
    return {
        f"{name}_{field}": value
        for name, found in difference.tested.items()
        for field, value in found._asdict().items()
    }


def configurations(runs: Sequence[Run]) -> tuple[list[str], dict[tuple[str, ...], list[Run]]]:
    """Return the settings that differ, and the runs of each configuration by its values of these settings.

    Runs of one configuration differ in their seeds only, or are the same run again.
    """
    keys = differing(runs) or ["run.model"]
    shown = [_short_names({run.settings.get(key, "-") for run in runs}) for key in keys]
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        values = (names[run.settings.get(key, "-")] for key, names in zip(keys, shown, strict=True))
        groups.setdefault(tuple(values), []).append(run)
    return keys, groups


def _short_names(values: set[str]) -> dict[str, str]:
    """Return a short name for each value: what follows its last slash, if that tells it from the other values."""
    short = {value: value.rstrip("/").rsplit("/", 1)[-1] for value in values}
    return short if len(set(short.values())) == len(values) else {value: value for value in values}


def _figures(runs: Sequence[Run], metrics: Sequence[str], split: str) -> dict[str, float]:
    figures: dict[str, float] = {"runs": len(runs)}
    for metric in metrics:
        scores = pd.Series([run.result[split].get(metric) for run in runs], dtype=float)
        figures |= {f"{metric}_mean": scores.mean(), f"{metric}_std": scores.std()}
    return figures | {"fit_minutes": statistics.mean(run.result["seconds"]["fit"] for run in runs) / 60}


class Cells(NamedTuple):
    """A table as text."""

    headings: list[str]
    texts: list[list[str]]  # of all cells, row by row
    bests: list[list[bool]]  # which of them are the best of their metric within their data set


def cells(rows: pd.DataFrame) -> Cells:
    """Return the texts of a table of :func:`table`."""
    columns = list(rows.columns)
    settings, figures = columns[: columns.index("runs")], columns[columns.index("runs") :]
    metrics = [name.removesuffix("_mean") for name in figures if name.endswith("_mean")]
    tests = [name for name in TESTS if f"{name}_p" in rows]
    compared = [f"{metrics[0]} to baseline"] if "difference" in rows else []
    compared += [f"over {TESTS[name][0]}, p (Holm of {rows[f'{name}_p'].count()})" for name in tests]
    rivals = rows.groupby("dataset.name" if "dataset.name" in settings else [0] * len(rows))
    best = pd.DataFrame({metric: rivals[f"{metric}_mean"].transform("max") for metric in metrics})
    best = best.where(rivals["runs"].transform("size") > 1)  # a single row is not the best of anything
    texts, bests = [], []
    for (_, row), (_, highest) in zip(rows.iterrows(), best.iterrows(), strict=True):
        scores = [_score(row[f"{metric}_mean"], row[f"{metric}_std"]) for metric in metrics]
        last = [_difference(row)] if "difference" in rows else []
        last += [*(_comparison(row, name) for name in tests), f"{row['fit_minutes']:.1f}"]
        texts.append([*(row[key] for key in settings), str(row["runs"]), *scores, *last])
        are_best = [bool(row[f"{metric}_mean"] == highest[metric]) for metric in metrics]
        bests.append([*[False] * (len(settings) + 1), *are_best, *[False] * len(last)])
    names = [*headings(settings), "runs", *metrics, *compared, "minutes"]
    return Cells(names, texts, bests)


def _score(mean: float, deviation: float) -> str:
    if math.isnan(mean):
        return "-"
    return f"{mean:.4f}" + ("" if math.isnan(deviation) else f" ± {deviation:.4f}")


def _difference(row: pd.Series[Any]) -> str:
    return "-" if math.isnan(row["difference"]) else f"{row['difference']:+.4f}"


def _comparison(row: pd.Series[Any], test: str) -> str:
    low, high, p, p_holm = (row[f"{test}_{field}"] for field in ("low", "high", "p", "p_holm"))
    if math.isnan(p):
        return "-"
    texts = ["<0.001" if value < 0.001 else f"{value:.3f}" for value in (p, p_holm)]
    return f"[{low:+.4f}, {high:+.4f}] {texts[0]} ({texts[1]})"


def show(made: Cells, console: Console) -> None:
    """Print a table in a terminal, the best values in bold."""
    names, texts, bests = made
    shown = Table()
    for name in names:
        shown.add_column(escape(name), overflow="fold")
    for line, best in zip(texts, bests, strict=True):
        marked = (f"[bold]{escape(t)}[/]" if b else escape(t) for t, b in zip(line, best, strict=True))
        shown.add_row(*marked)
    console.print(shown)


def markdown(made: Cells) -> str:
    """Return a table in Markdown, the best values in bold."""
    names, texts, bests = made
    lines = [names, ["---"] * len(names)]
    for line, best in zip(texts, bests, strict=True):
        safe = [text.replace("|", "\\|") for text in line]
        lines.append([f"**{text}**" if b else text for text, b in zip(safe, best, strict=True)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"±": r"$\pm$", "\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}"}
)


def latex(made: Cells) -> str:
    """Return a table in LaTeX for the booktabs package, the best values in bold."""
    names, texts, bests = made
    lines = [r"\begin{tabular}{" + "l" * len(names) + "}", r"\toprule"]
    lines += [" & ".join(name.translate(_LATEX) for name in names) + r" \\", r"\midrule"]
    for line, best in zip(texts, bests, strict=True):
        safe = [text.translate(_LATEX) for text in line]
        lines.append(" & ".join(rf"\textbf{{{t}}}" if b else t for t, b in zip(safe, best, strict=True)) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"
