"""``ptmt export``: a trained model as an ONNX file."""

from __future__ import annotations

import argparse
from pathlib import Path

from ptmt_lightning.export import export_onnx


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Of the command."""
    parser.add_argument("model", metavar="MODEL", help="model/ folder of a run, or its name on a hub")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument("--int8", action="store_true", help="matrix products in 8 bits: smaller, faster on CPUs")
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    export_onnx(options.model, options.output, int8=options.int8)
    print(f"{options.output}: opens with Classifier.from_pretrained, ptmt predict")
