"""The command ``ptmt export``, which writes a trained model as one file."""

from __future__ import annotations

import argparse
from pathlib import Path

FILE_FORMATS = ("onnx", "torch_export")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ptmt export`` to its parser."""
    parser.add_argument("model", metavar="MODEL", help="model/ folder of a run, or its name on a hub")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="a new folder")
    parser.add_argument("--format", default="onnx", choices=FILE_FORMATS, help="for onnxruntime, or torch.export.load")
    parser.add_argument("--int8", action="store_true", help="ONNX's matrix products in 8 bits: smaller, faster on CPUs")
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    from ptmt_lightning.inference.export import export_model

    export_model(options.model, options.output, file_format=options.format, int8=options.int8)
    print(f"{options.output}: opens with Classifier.from_pretrained, ptmt predict")
