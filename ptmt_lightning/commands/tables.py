"""What ``ptmt data import``, ``merge`` and ``info`` do with tables and folders of labelled documents."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ptmt_lightning.data.description import Description

_DEFAULT_LENGTH = 512  # of bert-base-uncased, the default backbone, with max_length: null
_MAX_COUNTED = 2**15  # tokens of a text that are counted


def add_table_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the settings of ``conf/dataset/table.yaml`` that say how a table is read to a subcommand's parser."""
    add = parser.add_argument_group(
        "of a table", "as dataset.text=, dataset.levels= and so on in a training"
    ).add_argument
    add("--text", nargs="+", metavar="COLUMN", help="column of the text, or several (default: text)")
    add("--levels", nargs="+", metavar="COLUMN", help="columns of the labels, top level first (default: level1 ...)")
    add("--paths", metavar="COLUMN", help="column of whole label paths (default: labels, label, paths or path)")
    add("--level-separator", metavar="TEXT", help="between the labels of a path (default: >)")
    add("--path-separator", metavar="TEXT", help="between paths (default: |); '' if a cell is one path")
    add("--delimiter", metavar="CHARACTER", help="between the columns of a CSV file (default: it is found)")
    add("--encoding", help="of a text file (default: by its byte-order mark, else UTF-8)")
    add("--sheet", help="of an Excel file (default: the first)")
    add("--format", help="csv, tsv, xlsx, parquet, json, jsonl, label-studio or argilla (default: it is found)")
    add("--split-column", metavar="COLUMN", help="column that says train, val or test")
    add("--split-seed", type=int, metavar="N", help="decides what goes into a split that is missing (default: 0)")
    add("--val-share", type=float, metavar="SHARE", help="of a validation split to be drawn (default: 0.1); 0: none")
    add("--test-share", type=float, metavar="SHARE", help="of a test split to be drawn (default: 0.1); 0: none")
    add("--taxonomy", metavar="FILE", help="with the taxonomy (default: that of the documents' paths)")
    add("--skip-bad-rows", action="store_true", default=None, help="leave out rows that can't be used")


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    from ptmt_lightning.data.tables.options import TableOptions

    names = {field.name for field in fields(TableOptions)}
    given = {key: value for key, value in vars(options).items() if key in names and value is not None}
    if given.get("path_separator") == "":
        given["path_separator"] = None
    return given | {"prefix": "--"}


def import_table(options: argparse.Namespace) -> None:
    """Write a folder in the project's own form from a table.

    Raises:
        ValueError: the table can't be used, or the folder is there already.
    """
    from ptmt_lightning.data.tables.convert import convert
    from ptmt_lightning.data.tables.options import TableOptions
    from ptmt_lightning.data.tables.sources import source_of

    folder = _new_folder(options)
    settings = TableOptions(**_settings(options))
    for line in convert(source_of(options.path, settings), settings, folder):
        print(line)
    print(f"written: {folder}; next: ptmt train dataset=jsonl dataset.path={folder}")


def merge_folders(options: argparse.Namespace) -> None:
    """Write a folder in the project's own form from several.

    Raises:
        ValueError: a folder can't be used, or the new one is there already.
    """
    from ptmt_lightning.data.merging import PARTS, merge

    folder = _new_folder(options)
    for line in merge(options.folders, folder, by_path=options.by_path):
        print(line)
    print(f"written: {folder}, documents of each part in {folder / PARTS}")
    print(f"next: ptmt train dataset=jsonl dataset.path={folder}")


def _new_folder(options: argparse.Namespace) -> Path:
    """Return the folder to be written.

    Raises:
        ValueError: it is there already, or the one that it would be in is not.
    """
    from ptmt_lightning.utils.files import check_folder_of

    folder: Path = options.output
    check_folder_of(folder, "--output")
    if folder.exists():
        raise ValueError(f"--output {folder}: it is there already; expected a new folder; remove it or name another")
    return folder


def describe_data(options: argparse.Namespace) -> None:
    """Print what is in a folder in the project's own form, or in a table.

    Raises:
        ValueError: the data can't be used.
    """
    from ptmt_lightning.data.datamodule import HTCDataModule
    from ptmt_lightning.data.description import describe
    from ptmt_lightning.data.tables.module import TableDataModule
    from ptmt_lightning.utils.checks import check_range
    from ptmt_lightning.utils.files import check_folder_of

    if options.picture:
        check_folder_of(options.picture, "--picture")
    if options.max_length is not None:
        check_range("--max-length", options.max_length, 1, integer=True)
    data: HTCDataModule
    if _is_own_form(options.name):
        data = HTCDataModule(options.name)
    else:
        data = TableDataModule(options.name, cache_dir=options.cache_dir, **_settings(options))
        data.prepare_data()
    lengths, unit, max_length = _lengths(options)
    reserved = {"": 2, "model=ptmt": _prompt_tokens() + data.taxonomy.num_levels + 3}
    found = describe(data.path, data.taxonomy, lengths, unit=unit, max_length=max_length, reserved=reserved)
    if options.json:
        print(json.dumps(found.content(), indent=2, ensure_ascii=False))
    else:
        _show(options.name, found)
    if options.picture:
        from ptmt_lightning.data.description_figure import draw

        draw(found, options.picture, Path(options.name).name)


def _is_own_form(path: str) -> bool:
    """Return whether a folder holds data as training takes them; another one is read as a table in several files."""
    from ptmt_lightning.data.document import split_file
    from ptmt_lightning.data.hierarchy import has_taxonomy

    folder = Path(path)
    has = [folder.is_dir() and split_file(folder, split) is not None for split in ("train", "val", "test")]
    return (any(has) and has_taxonomy(folder)) or all(has[:2])


def _prompt_tokens() -> int:
    import yaml

    from ptmt_lightning.launch.conf import conf_folder

    content = yaml.safe_load((conf_folder() / "model" / "ptmt.yaml").read_text(encoding="utf-8"))
    return int(content["num_prompt_tokens"])


def _lengths(options: argparse.Namespace) -> tuple[Callable[[Sequence[str]], list[int]], str, int]:
    """Return what counts the lengths of texts, in which unit, and the longest sequence in tokens."""
    if options.backbone is None:
        return (lambda texts: [len(text.split()) for text in texts]), "words", options.max_length or _DEFAULT_LENGTH
    from ptmt_lightning.backbones.sources import read_tokenizer
    from ptmt_lightning.utils.hub import hub_source
    from ptmt_lightning.utils.tokens import text_token_ids

    source = hub_source(options.backbone)
    tokenizer = read_tokenizer(source.name, **source.options)
    longest = min(tokenizer.model_max_length, _MAX_COUNTED)  # a tokenizer that knows none says 10**30

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in text_token_ids(tokenizer, texts, _MAX_COUNTED)]

    return count, "tokens", options.max_length or longest


def _show(name: str, found: Description) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    content = found.content()
    console = Console()
    table = Table(title=escape(f"{name}: documents"))
    rows = {
        "documents": "documents", "without labels": "without_labels", "label paths each": "paths_per_document",
        f"{found.unit}, median": "length_median", f"{found.unit}, 95 % up to": "length_95",
        f"{found.unit}, at most": "length_max", "repeated texts": "repeated_texts",
    }  # fmt: skip
    table.add_column("")
    for split in found.splits:
        table.add_column(split, justify="right")
    for heading, key in rows.items():
        table.add_row(heading, *(_number(content["splits"][split][key]) for split in found.splits))
    for kind, reserved in found.reserved.items():
        heading = f"cut at max_length {found.max_length}{f', {kind}' if kind else ''}"
        sizes = {split: len(figures.lengths) for split, figures in found.splits.items()}
        cut = {split: found.cut(split, reserved) for split in found.splits}
        table.add_row(heading, *(f"{cut[split]:,} ({cut[split] / sizes[split]:.1%})" for split in found.splits))
    console.print(table)
    levels = Table(title="labels, by documents to train on")
    for heading in ("level", "labels", "fewest", "median", "most", "ratio", "rare, 1-4", "unseen, 0"):
        levels.add_column(heading, justify="right")
    for row in content["levels"]:
        keys = ("level", "labels", "documents_min", "documents_median", "documents_max", "imbalance", "rare", "unseen")
        levels.add_row(*(_number(row[key]) for key in keys))
    console.print(levels)
    for line in _remarks(content):
        console.print(escape(line), highlight=False, soft_wrap=True)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}".removesuffix(".00")


def _remarks(content: dict[str, Any]) -> list[str]:
    """Return a line for each kind of finding that there is."""
    findings = content["findings"]
    kinds = {
        "only_in_evaluation": "label(s) occur in val or test alone, so that they can't be learnt",
        "nowhere": "label(s) of the taxonomy occur nowhere",
        "several_parents": "label(s) have several parents",
        "repeated_names": "name(s) stand for several labels, under different parents",
    }
    lines = []
    for kind, text in kinds.items():
        count, examples = findings[kind]["count"], findings[kind]["examples"]
        if count:
            lines.append(f"{count:,} {text}: {', '.join(examples)}{', ...' if count > len(examples) else ''}")
    lines += [f"{count:,} text(s) in both {pair}" for pair, count in findings["texts_in_two_splits"].items() if count]
    if content["unit"] == "words":
        lines.append("lengths are in words, of which most make more than one token; --backbone NAME counts tokens")
    return lines
