"""Runs side by side as one HTML file that needs no network: a table and pictures that share rows and selection."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

import pandas as pd
from bokeh.document import Document
from bokeh.embed import file_html
from bokeh.layouts import column, row
from bokeh.models import BooleanFilter, CDSView, ColumnDataSource, CustomJS, HoverTool
from bokeh.models.widgets.inputs import Select, TextInput
from bokeh.models.widgets.markups import Div
from bokeh.models.widgets.tables import DataTable, NumberFormatter, TableColumn
from bokeh.palettes import Category20_20
from bokeh.plotting import figure
from bokeh.resources import INLINE

from ptmt_lightning.reporting.report import cells
from ptmt_lightning.reporting.run_rows import best_two, run_rows
from ptmt_lightning.run_folder.finished import Run

_WIDTH = 1400
_COSTS = {
    "fit_minutes": "training, device minutes",
    "test_milliseconds": "test, milliseconds a document",
    "parameters": "parameters, millions",
}
_TWO_RUNS = "<h2>Two runs</h2>The first two of those picked: what was set differently, and F1 of each label."


def page(
    runs: Sequence[Run], rows: pd.DataFrame, *, metrics: Sequence[str], split: str, left_out: Sequence[str] = ()
) -> str:
    """Return an HTML page that compares runs.

    Args:
        runs: finished runs; those without a score on the split are left out.
        rows: the table that :func:`~ptmt_lightning.reporting.report.table` made of them.
        metrics: the metrics in the table of runs; the first one is drawn.
        split: ``val`` or ``test``.
        left_out: lines about folders that are not finished runs.
    """
    runs = [run for run in runs if run.result[split]]
    table, label_lists = run_rows(runs, metrics, split)
    columns: dict[str, Any] = {name: [line[name] for line in table] for name in table[0]}
    shades = {name: Category20_20[i % 20] for i, name in enumerate(dict.fromkeys(columns["configuration"]))}
    columns["color"] = [shades[name] for name in columns["configuration"]]
    source = ColumnDataSource(columns, name="runs")
    kept = BooleanFilter(booleans=[True] * len(runs))
    view = CDSView(filter=kept)
    search = TextInput(placeholder="words that runs must have, such as: clinc150 ptmt", width=_WIDTH)
    search.js_on_change("value_input", _script("filter", source=source, kept=kept))
    labels = ColumnDataSource({name: [] for name in ("label", "first", "second", "difference")})
    differences = Div(width=_WIDTH // 2)
    compare = _script("compare", source=source, labels=labels, differences=differences, lists=label_lists)
    source.selected.js_on_change("indices", compare)
    parts = [
        Div(text=_summary(rows, left_out), width=_WIDTH),
        Div(text="<h2>Runs</h2>Click a heading to sort; click runs to pick them, more of them with Ctrl or Shift."),
        search,
        _runs_table(source, view, metrics),
        row(_cost_picture(source, view, metrics[0], split), _level_picture(source, view, split)),
        row(*_curve_pictures(source, view, metrics[0])),
        Div(text=_TWO_RUNS, width=_WIDTH),
        row(differences, column(_label_picture(labels), _label_table(labels))),
    ]
    source.selected.indices = best_two(table, metrics[0])
    document = Document(title=f"{len(runs)} runs")
    document.add_root(column(*parts))
    document.js_on_event("document_ready", compare)
    return file_html(document, INLINE)


def _script(name: str, **models: Any) -> CustomJS:
    code = (files("ptmt_lightning.reporting") / f"{name}.js").read_text(encoding="utf-8")
    return CustomJS(args=models, code=code)


def _summary(rows: pd.DataFrame, left_out: Sequence[str]) -> str:
    names, texts, bests = cells(rows)
    lines = ["".join(f"<th>{escape(name)}</th>" for name in names)]
    for line, best in zip(texts, bests, strict=True):
        marked = (f"<b>{escape(t)}</b>" if b else escape(t) for t, b in zip(line, best, strict=True))
        lines.append("".join(f"<td>{text}</td>" for text in marked))
    skipped = "".join(f"<li>{escape(line)}</li>" for line in left_out)
    details = f"<details><summary>{len(left_out)} folders left out</summary><ul>{skipped}</ul></details>"
    style = "<style>table { border-collapse: collapse } th, td { padding: 2px 10px; text-align: left }</style>"
    table = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"{style}<h2>Configurations</h2><table>{table}</table>{details if left_out else ''}"


def _runs_table(source: ColumnDataSource, view: CDSView, metrics: Sequence[str]) -> DataTable:
    numbers = {metric: (metric, "0.0000") for metric in metrics}
    numbers |= {"fit_minutes": ("device minutes", "0.0"), "test_milliseconds": ("ms a document", "0.00")}
    columns = [TableColumn(field=name, title=name) for name in ("run", "dataset", "configuration", "seed")]
    columns += [
        TableColumn(field=field, title=title, formatter=NumberFormatter(format=shown, nan_format="-"), width=100)
        for field, (title, shown) in numbers.items()
    ]
    columns[0].width, columns[2].width, columns[3].width = 350, 350, 50
    return DataTable(source=source, view=view, columns=columns, width=_WIDTH, height=300, reorderable=False)


def _figure(title: str, x: str, y: str, **options: Any) -> figure:
    tools = "pan,wheel_zoom,box_select,tap,reset"
    return figure(
        title=title, x_axis_label=x, y_axis_label=y, width=_WIDTH // 2, height=320, tools=tools, **options
    )  # fmt: skip


def _lines(picture: figure, xs: str, ys: str, source: ColumnDataSource, view: CDSView) -> None:
    lines = picture.multi_line(
        xs, ys, source=source, view=view, color="color", line_width=2, selection_alpha=1, nonselection_alpha=0.15
    )
    picture.add_tools(HoverTool(renderers=[lines], tooltips=[("", "@run"), ("", "@configuration")]))


def _cost_picture(source: ColumnDataSource, view: CDSView, metric: str, split: str) -> Any:
    picture = _figure(f"{split}: quality against cost", _COSTS["fit_minutes"], metric)
    points = picture.scatter(
        "cost", metric, source=source, view=view, color="color", size=9, selection_alpha=1, nonselection_alpha=0.3
    )
    tips = [("", "@run"), ("", "@configuration"), (metric, f"@{metric}{{0.0000}}"), ("cost", "@cost{0.00}")]
    picture.add_tools(HoverTool(renderers=[points], tooltips=tips))
    options: list[Any] = list(_COSTS.items())
    costs = Select(options=options, value="fit_minutes")
    code = "source.data.cost = source.data[this.value]; axis.axis_label = names[this.value]; source.change.emit()"
    costs.js_on_change("value", CustomJS(args={"source": source, "axis": picture.xaxis[0], "names": _COSTS}, code=code))
    return column(costs, picture)


def _level_picture(source: ColumnDataSource, view: CDSView, split: str) -> figure:
    picture = _figure(f"{split}: macro F1 at each level", "level", "f1_macro")
    picture.xaxis.ticker = list(range(1, max(map(len, source.data["levels"])) + 1))
    _lines(picture, "levels", "level_f1", source, view)
    return picture


def _curve_pictures(source: ColumnDataSource, view: CDSView, metric: str) -> list[figure]:
    score = _figure(f"validation {metric}", "step", metric)
    loss = _figure("training loss", "step", "loss", y_axis_type="log", x_range=score.x_range)
    _lines(score, "score_steps", "score", source, view)
    score.scatter("last_step", "last_score", source=source, view=view, color="color", nonselection_alpha=0.15)
    _lines(loss, "loss_steps", "loss", source, view)
    return [score, loss]


def _label_picture(labels: ColumnDataSource) -> figure:
    picture = _figure("test: F1 of each label", "first run", "second run", x_range=(-0.02, 1.02), y_range=(-0.02, 1.02))
    picture.line([0, 1], [0, 1], color="gray", line_dash="dashed")
    points = picture.scatter("first", "second", source=labels, size=6, alpha=0.6)
    picture.add_tools(HoverTool(renderers=[points], tooltips=[("", "@label"), ("F1", "@first / @second")]))
    return picture


def _label_table(labels: ColumnDataSource) -> DataTable:
    names = {"label": "label", "first": "first run", "second": "second run", "difference": "difference"}
    columns = [TableColumn(field=field, title=title) for field, title in names.items()]
    return DataTable(source=labels, columns=columns, width=_WIDTH // 2, height=250, reorderable=False)
