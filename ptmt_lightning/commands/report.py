"""The command ``ptmt report``, which compares runs in a table or on a page."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from ptmt_lightning.run_folder.finished import Run, find_runs
from ptmt_lightning.utils.files import check_folder_of, write_text
from ptmt_lightning.utils.tables import csv_text

log = logging.getLogger(__name__)

METRICS = ("h_f1_macro", "h_f1_micro", "h_auprc")  # shown by default
_WIDE = 1000  # width in characters of an output that is no terminal, so that no line is broken


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ptmt report`` to its parser."""
    parser.add_argument("paths", nargs="+", type=Path, metavar="FOLDER", help="a run, or a folder with runs below it")
    parser.add_argument("--split", default="test", choices=("val", "test"))
    parser.add_argument(
        "--metrics", default=",".join(METRICS), help="the first one orders the rows (default: %(default)s)"
    )
    parser.add_argument(
        "--baseline", metavar="NAME=VALUE,...", help="test each configuration against this one of its data set"
    )
    parser.add_argument("--format", default="text", choices=("text", "markdown", "latex", "csv"))
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with all runs and pictures instead")
    parser.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> None:
    if options.html:
        check_folder_of(options.html, "--html")
    runs, left_out = find_runs(options.paths)
    for line in left_out:
        log.warning("left out: %s", line)
    if not runs:
        raise ValueError(f"no finished run in {', '.join(map(str, options.paths))}")
    _show(options, runs, left_out)


def _show(options: argparse.Namespace, runs: Sequence[Run], left_out: Sequence[str]) -> None:
    """Print the table of runs, or write the page with ``--html``."""
    from rich.console import Console

    from ptmt_lightning.reporting import report
    from ptmt_lightning.reporting.searches import cells, find_searches

    metrics = options.metrics.split(",")
    unscored = sum(not run.result[options.split] for run in runs)
    if 0 < unscored < len(runs):
        log.warning("left out: %d runs without scores on --split %s", unscored, options.split)
    settings = {"metrics": metrics, "split": options.split, "baseline": options.baseline}
    if options.html:
        from ptmt_lightning.reporting.page import page  # draws pictures: Matplotlib is slow to import

        write_text(options.html, page(runs, **settings, left_out=left_out))
        return
    rows = report.table(runs, **settings)
    if options.format == "csv":
        sys.stdout.write(csv_text(rows))
        return
    tables = [report.cells(rows), *([cells(found)] if (found := find_searches(runs)) else [])]
    if options.format == "text":
        console = Console() if sys.stdout.isatty() else Console(width=_WIDE)
        for made in tables:
            report.show(made, console)
    else:
        write = {"markdown": report.markdown, "latex": report.latex}[options.format]
        print("\n".join(map(write, tables)), end="")
