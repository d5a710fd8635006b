"""Tables over runs: one row a configuration, mean and deviation over its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ptmt_lightning.reporting.runs import Run, differing

METRICS = ("h_f1_macro", "h_f1_micro", "h_auprc")


def table(runs: Sequence[Run], *, metrics: Sequence[str] = METRICS, split: str = "test") -> pd.DataFrame:
    """One row a configuration, the best first in each data set.

    Columns: the settings that differ, ``runs``, ``<metric>_mean`` and ``<metric>_std`` (sample deviation, NaN of a
    single run), ``fit_minutes``.

    Raises:
        ValueError: no run has a score on that split, or a metric is unknown.
    """
    scored = [run for run in runs if run.result[split]]
    if not scored:
        raise ValueError(f"--split {split}: none of the {len(runs)} runs has scores there; choose the other one")
    for metric in metrics:
        known = scored[0].result[split]
        if metric not in known:
            raise ValueError(f"--metrics {metric}: no such metric; known: {', '.join(known)}")
    keys = differing(scored) or ["run.model"]
    frame = pd.DataFrame(
        [
            {key: _shown(run.settings.get(key)) for key in keys}
            | {metric: run.result[split].get(metric) for metric in metrics}
            | {"fit_minutes": run.result["seconds"]["fit"] / 60}
            for run in scored
        ]
    )
    groups = frame.groupby(keys, sort=False)
    columns: dict[str, pd.Series[Any]] = {"runs": groups.size()}
    for metric in metrics:
        columns |= {f"{metric}_mean": groups[metric].mean(), f"{metric}_std": groups[metric].std()}
    columns["fit_minutes"] = groups["fit_minutes"].mean()
    rows = pd.DataFrame(columns).reset_index()
    by, ascending = [f"{metrics[0]}_mean"], [False]
    if "dataset.name" in keys:
        by, ascending = ["dataset.name", *by], [True, *ascending]
    return rows.sort_values(by, ascending=ascending, ignore_index=True)


def _shown(value: object) -> str:
    text = "-" if value is None else str(value)
    return text.rsplit("/", 1)[-1]  # of a model's folder or hub name its own


def cells(rows: pd.DataFrame) -> tuple[list[str], list[list[str]], list[list[bool]]]:
    """Headings, texts, and which texts are the best of their metric within their data set."""
    settings = list(rows.columns[: rows.columns.get_loc("runs")])
    metrics = [name.removesuffix("_mean") for name in map(str, rows) if name.endswith("_mean")]
    short = [key.rsplit(".", 1)[-1] for key in settings]
    names = [name if short.count(name) == 1 else key for name, key in zip(short, settings, strict=True)]
    names = ["dataset" if key == "dataset.name" else name for name, key in zip(names, settings, strict=True)]
    texts, bests = [], []
    for _, row in rows.iterrows():
        rivals = rows[rows["dataset.name"] == row["dataset.name"]] if "dataset.name" in settings else rows
        scores = [
            f"{row[f'{metric}_mean']:.4f}" + (f" ± {row[f'{metric}_std']:.4f}" if row["runs"] > 1 else "")
            for metric in metrics
        ]
        texts.append([*(row[key] for key in settings), str(row["runs"]), *scores, f"{row['fit_minutes']:.1f}"])
        best = [len(rivals) > 1 and row[f"{metric}_mean"] == rivals[f"{metric}_mean"].max() for metric in metrics]
        bests.append([*[False] * (len(settings) + 1), *best, False])
    return [*names, "runs", *metrics, "minutes"], texts, bests


def show(rows: pd.DataFrame, console: Console) -> None:
    """In a terminal, the best in bold."""
    names, texts, bests = cells(rows)
    shown = Table()
    for name in names:
        shown.add_column(escape(name))
    for line, best in zip(texts, bests, strict=True):
        marked = (f"[bold]{escape(t)}[/]" if b else escape(t) for t, b in zip(line, best, strict=True))
        shown.add_row(*marked)
    console.print(shown)


def markdown(rows: pd.DataFrame) -> str:
    """A Markdown table, the best in bold."""
    names, texts, bests = cells(rows)
    lines = [names, ["---"] * len(names)]
    for line, best in zip(texts, bests, strict=True):
        safe = [text.replace("|", "\\|") for text in line]
        lines.append([f"**{text}**" if b else text for text, b in zip(safe, best, strict=True)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


_LATEX = str.maketrans({character: f"\\{character}" for character in "&%$#_{}"} | {"±": r"$\pm$"})


def latex(rows: pd.DataFrame) -> str:
    """A LaTeX table for the booktabs package, the best in bold."""
    names, texts, bests = cells(rows)
    lines = [r"\begin{tabular}{" + "l" * len(names) + "}", r"\toprule"]
    lines += [" & ".join(name.translate(_LATEX) for name in names) + r" \\", r"\midrule"]
    for line, best in zip(texts, bests, strict=True):
        safe = [text.translate(_LATEX) for text in line]
        lines.append(" & ".join(rf"\textbf{{{t}}}" if b else t for t, b in zip(safe, best, strict=True)) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"
