"""The command ``ptmt data``: downloads of benchmarks, data folders made of tables or of others, and what is in any."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ptmt_lightning.commands.tables import add_table_arguments, describe_data, import_table, merge_folders
from ptmt_lightning.launch.conf import conf_folder

if TYPE_CHECKING:
    from ptmt_lightning.data.benchmarks.base import BenchmarkDataModule

_BENCHMARKS_PACKAGE = "ptmt_lightning.data.benchmarks."
_TABLES = ".csv, .tsv, .xlsx, .parquet, .json, .jsonl, a folder with one of them a split, hf://OWNER/NAME"
_IN_TABLE_2 = ("wos", "bgc", "bugs", "amazon")
NUM_FOLDS = 6  # two repeats of 3-fold cross-validation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ptmt data`` to its parser."""
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    text = "fetch a benchmark's official files, or go on with that, or check them"
    download = actions.add_parser("download", help=text, description=text)
    download.add_argument("name", choices=benchmarks())
    _add_benchmark_arguments(download)
    download.set_defaults(run=_download)

    text = "write a data folder from a table, a data set of a hub, or an export of an annotation tool"
    import_ = actions.add_parser("import", help=text, description=text)
    import_.add_argument("path", metavar="PATH", help=_TABLES)
    import_.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="a new folder")
    add_table_arguments(import_)
    import_.set_defaults(run=import_table)

    text = "write one data folder from several, each below a top label that has the folder's name"
    merge = actions.add_parser("merge", help=text, description=text)
    merge.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="data in the project's own form")
    merge.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="a new folder")
    merge.add_argument("--by-path", action="store_true", help="no top labels: equal paths become one label")
    merge.set_defaults(run=merge_folders)

    text = "what is in a data set: documents, labels, lengths; of a benchmark beside what is published"
    info = actions.add_parser("info", help=text, description=text)
    info.add_argument("name", metavar="DATA", help=f"a data folder, or {_TABLES}; or {', '.join(benchmarks())}")
    info.add_argument(
        "--backbone", metavar="NAME", help="count lengths in the tokens of this model (default: in words)"
    )
    info.add_argument(
        "--max-length", type=int, metavar="N", help="tokens of a sequence (default: what the model allows)"
    )
    info.add_argument("--json", action="store_true", help="print all figures as JSON")
    info.add_argument("--picture", type=Path, metavar="FILE.png", help="draw labels' frequencies and texts' lengths")
    info.add_argument("--cache-dir", default="data/cache", help="where a converted table, or a fold's ids, are kept")
    add_table_arguments(info)
    _add_benchmark_arguments(info.add_argument_group("of a benchmark"))
    info.add_argument(
        "--split",
        choices=("published", "folds"),
        help="of wos, bugs and amazon (default: published where both files are there)",
    )
    info.add_argument(
        "--fold", type=int, choices=range(NUM_FOLDS), help="of wos, bugs and amazon (default: none, or 0)"
    )
    info.set_defaults(run=_info)


def _add_benchmark_arguments(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--path", help="folder of the benchmark (default: data/NAME)")
    parser.add_argument("--mirror", help="base address to download from instead: https://, http:// or file://")


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
    folded = issubclass(kind, FoldedDataModule) and "fold" in options
    settings = {"split": options.split, "fold": options.fold} if folded else {}
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
    if options.name not in benchmarks():
        describe_data(options)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from ptmt_lightning.data.benchmarks.table2 import compare

    data = _benchmark(options)
    data.prepare_data()
    published = "Table 2" if options.name in _IN_TABLE_2 else "published"
    table = Table(title=escape(f"{options.name}, from {data.summary['form']}"))
    for heading in ("", "here", published, "remark"):
        table.add_column(heading, justify="right" if heading in ("here", published) else "left")
    for row in compare(data):
        table.add_row(*map(escape, row))
    console = Console()
    console.print(table)
    console.print(f"splits: {escape(data.protocol)}")
    for reason, count in data.summary["dropped"].items():
        console.print(f"left out: {count:,} document(s), {escape(reason)}")
