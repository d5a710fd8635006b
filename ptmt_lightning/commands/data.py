"""The command ``ptmt data``, which downloads a benchmark and compares it with the paper's Table 2."""

from __future__ import annotations

import argparse
import importlib
from typing import TYPE_CHECKING

import yaml

from ptmt_lightning.launch.conf import conf_folder

if TYPE_CHECKING:
    from ptmt_lightning.data.benchmarks.base import BenchmarkDataModule

_BENCHMARKS_PACKAGE = "ptmt_lightning.data.benchmarks."
NUM_FOLDS = 6  # two repeats of 3-fold cross-validation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ptmt data`` to its parser."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    for name, run, text in (
        ("download", _download, "fetch the official files, or go on with that, or check them"),
        ("info", _info, "documents, labels, lengths and splits beside the paper's"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("name", choices=benchmarks())
        action.add_argument("--path", help="folder of the benchmark (default: data/NAME)")
        action.add_argument("--mirror", help="base address to download from instead: https://, http:// or file://")
        if run is _info:
            action.add_argument(
                "--fold", type=int, default=0, choices=range(NUM_FOLDS), help="not for bgc (default: 0)"
            )
            action.add_argument("--cache-dir", default="data/cache", help="where a fold's document ids are kept")
        action.set_defaults(run=run)


def benchmarks() -> dict[str, str]:
    """Return the dotted name of each benchmark's data module class, by the name of its file in ``conf/dataset``."""
    targets = {
        path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))["_target_"]
        for path in sorted((conf_folder() / "dataset").glob("*.yaml"))
    }
    return {name: target for name, target in targets.items() if target.startswith(_BENCHMARKS_PACKAGE)}


def benchmark_class(name: str) -> type[BenchmarkDataModule]:
    """Return the data module class of a benchmark, by its name in ``conf/dataset``."""
    module, _, kind = benchmarks()[name].rpartition(".")
    found: type[BenchmarkDataModule] = getattr(importlib.import_module(module), kind)
    return found


def _benchmark(options: argparse.Namespace) -> BenchmarkDataModule:
    from ptmt_lightning.data.benchmarks.base import FoldedDataModule

    kind = benchmark_class(options.name)
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
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from ptmt_lightning.data.benchmarks.table2 import compare

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
