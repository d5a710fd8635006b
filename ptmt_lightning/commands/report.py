"""``ptmt report``: runs side by side."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from rich.console import Console

from ptmt_lightning.reporting import report
from ptmt_lightning.reporting.report import METRICS
from ptmt_lightning.reporting.runs import find_runs

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the command."""
    parser.add_argument("paths", nargs="+", type=Path, metavar="FOLDER", help="a run, or a folder with runs below it")
    parser.add_argument("--split", default="test", choices=("val", "test"))
    parser.add_argument(
        "--metrics", default=",".join(METRICS), help="the first one orders the rows (default: %(default)s)"
    )
    parser.add_argument("--format", default="text", choices=("text", "markdown", "latex", "csv"))
    parser.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> None:
    runs, left_out = find_runs(options.paths)
    for line in left_out:
        log.warning("left out: %s", line)
    if not runs:
        raise ValueError(f"no finished run in {', '.join(map(str, options.paths))}")
    rows = report.table(runs, metrics=options.metrics.split(","), split=options.split)
    match options.format:
        case "text":
            report.show(rows, Console())
        case "csv":
            rows.to_csv(sys.stdout, index=False)
        case _:
            print({"markdown": report.markdown, "latex": report.latex}[options.format](rows), end="")
