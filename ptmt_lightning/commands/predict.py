"""The command ``ptmt predict``, which writes label paths for the texts of a file."""

from __future__ import annotations

import argparse
import logging

from ptmt_lightning.commands.arguments import add_model_arguments, open_model

log = logging.getLogger(__name__)

INPUT_FORMATS = ("txt", "csv", "jsonl", "parquet")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ptmt predict`` to its parser."""
    add_model_arguments(parser)
    parser.add_argument("input", metavar="INPUT", help=".txt, .csv, .jsonl (also .gz), .parquet; - for standard input")
    parser.add_argument(
        "-o", "--output", default="-", metavar="OUTPUT",
        help=".jsonl, .csv (also .gz), .parquet; rows that can't be read go to OUTPUT.rejected.jsonl (default: JSON "
        "lines to standard output)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace OUTPUT")
    parser.add_argument("--input-format", choices=INPUT_FORMATS, help="default: by name; txt for standard input")
    parser.add_argument("--text-column", default="text", help="column or key of the text (default: %(default)s)")
    parser.add_argument("--threshold", type=_numbers, help="one, or one a level: 0.5,0.4 (default: the model's)")
    parser.add_argument("--top-k", type=int, help="at most so many labels a level; without --threshold the best")
    parser.add_argument("--no-prune", action="store_true", help="keep labels whose parent was not predicted")
    parser.set_defaults(run=_predict)


def _numbers(text: str) -> float | list[float]:
    values = [float(value) for value in text.split(",")]
    return values[0] if len(values) == 1 else values


def _predict(options: argparse.Namespace) -> None:
    from ptmt_lightning.inference.predict_file import check_files, predict_file

    files = {"input_format": options.input_format, "overwrite": options.overwrite}
    check_files(options.input, options.output, **files)
    counts = predict_file(
        open_model(options),
        options.input,
        options.output,
        **files,
        text_column=options.text_column,
        threshold=options.threshold,
        top_k=options.top_k,
        prune=False if options.no_prune else None,
        batch_size=options.batch_size,
    )
    kept = "" if options.output == "-" else f", see {options.output}.rejected.jsonl"
    log.info("%d predicted, %d left out%s", *counts, kept if counts.rejected else "")
    if not counts.predicted:
        reason = f"all {counts.rejected} rows were left out{kept}" if counts.rejected else "the input holds no row"
        raise ValueError(f"{options.input}: nothing was predicted, {reason}")
