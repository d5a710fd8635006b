"""``ptmt``: what there is to do besides training."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ptmt_lightning.data.amazon import AmazonDataModule
from ptmt_lightning.data.benchmark import BenchmarkDataModule, FoldedDataModule
from ptmt_lightning.data.bgc import BGCDataModule
from ptmt_lightning.data.bugs import BugsDataModule
from ptmt_lightning.data.folds import NUM_FOLDS
from ptmt_lightning.data.info import compare
from ptmt_lightning.data.wos import WOSDataModule
from ptmt_lightning.reporting import report
from ptmt_lightning.reporting.report import METRICS
from ptmt_lightning.reporting.runs import find_runs

log = logging.getLogger(__name__)

BENCHMARKS: dict[str, type[BenchmarkDataModule]] = {
    "wos": WOSDataModule, "bgc": BGCDataModule, "bugs": BugsDataModule, "amazon": AmazonDataModule,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the ``ptmt`` command."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ptmt", description="Hierarchical text classification: data, reports.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    data = commands.add_parser("data", help="download a benchmark; compare it with the paper's Table 2")
    actions = data.add_subparsers(required=True, metavar="ACTION")
    for name, run, text in (
        ("download", _download, "fetch the official files, or go on with that, or check them"),
        ("info", _info, "documents, labels, lengths and splits beside the paper's"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("name", choices=BENCHMARKS)
        action.add_argument("--path", help="folder of the benchmark (default: data/NAME)")
        action.add_argument("--mirror", help="base address to download from instead: https://, http:// or file://")
        if run is _info:
            action.add_argument(
                "--fold", type=int, default=0, choices=range(NUM_FOLDS), help="not for bgc (default: 0)"
            )
            action.add_argument("--cache-dir", default="data/cache", help="where a fold's document ids are kept")
        action.set_defaults(run=run)
    report = commands.add_parser("report", help="compare runs: mean and deviation over seeds of each configuration")
    report.add_argument("paths", nargs="+", type=Path, metavar="FOLDER", help="a run, or a folder with runs below it")
    report.add_argument("--split", default="test", choices=("val", "test"))
    report.add_argument(
        "--metrics", default=",".join(METRICS), help="the first one orders the rows (default: %(default)s)"
    )
    report.add_argument("--format", default="text", choices=("text", "markdown", "latex", "csv"))
    report.set_defaults(run=_report)
    return parser


def _benchmark(options: argparse.Namespace) -> BenchmarkDataModule:
    kind = BENCHMARKS[options.name]
    settings = {"fold": options.fold} if issubclass(kind, FoldedDataModule) and "fold" in options else {}
    return kind(
        name=options.name,
        path=options.path or f"data/{options.name}",
        mirror=options.mirror,
        batch_size=1,
        cache_dir=getattr(options, "cache_dir", "data/cache"),
        **settings,
    )


def _download(options: argparse.Namespace) -> None:
    data = _benchmark(options)
    data.download()
    print(f"{options.name}: complete, in {data.folder / 'raw'}")


def _info(options: argparse.Namespace) -> None:
    data = _benchmark(options)
    data.prepare_data()
    table = Table(title=escape(f"{options.name}, from {data.summary['form']}"))
    for heading in ("", "here", "Table 2", "remark"):
        table.add_column(heading, justify="right" if heading in ("here", "Table 2") else "left")
    for row in compare(data):
        table.add_row(*map(escape, row))
    console = Console()
    console.print(table)
    for reason, count in data.summary["dropped"].items():
        console.print(f"left out: {count:,} document(s), {escape(reason)}")


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
