"""The command ``ptmt export``, which writes a trained model as one file."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

log = logging.getLogger(__name__)

FILE_FORMATS = ("onnx", "openvino", "torch_export")
_NUM_TEXTS = 600  # of a file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ptmt export`` to its parser."""
    parser.add_argument("model", metavar="MODEL", help="model/ folder of a run, or its name on a hub")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument(
        "--format", default="onnx", choices=(*FILE_FORMATS, "fastest"),
        help="for onnxruntime, OpenVINO, or torch.export.load; or whichever of the first two, in 32 or 8 bits, is "
        "measured to be the fastest on this machine and keeps the labels (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--int8", action="store_true", help="matrix products in 8 bits: smaller, on most CPUs faster")
    parser.add_argument(
        "--texts", metavar="FILE",
        help="texts like those to be predicted (.txt, .csv, .jsonl, .parquet): the fastest is measured with them "
        "(without: with texts made up of names of labels), and OpenVINO's 8 bits are fitted to them (without: only "
        "weights are in 8 bits)",
    )  # fmt: skip
    parser.add_argument("--text-column", default="text", help="column or key of the text (default: %(default)s)")
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    from ptmt_lightning.inference.export import export_model
    from ptmt_lightning.inference.fastest import export_fastest, table
    from ptmt_lightning.inference.sample_texts import sample_of_file

    fastest = options.format == "fastest"
    if fastest and options.int8:
        raise ValueError("--int8 with --format fastest: it tries 8 bits anyway; leave --int8 out")
    texts = sample_of_file(options.texts, _NUM_TEXTS, options.text_column) if options.texts else []
    if fastest:
        if not texts:
            log.warning("measured with texts made up of names of labels; --texts FILE with real ones tells more")
        best, rows = export_fastest(options.model, options.output, texts=texts)
        print(table(rows, best))
    else:
        export_model(options.model, options.output, file_format=options.format, int8=options.int8, texts=texts)
    print(f"{options.output}: opens with Classifier.from_pretrained, ptmt predict")
