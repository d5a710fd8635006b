"""Arguments of the subcommands that run a trained model."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ptmt_lightning.inference import Classifier


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, and how it is opened and run, to a subcommand's parser."""
    parser.add_argument(
        "model", metavar="MODEL", help="model/ folder of a run, what ptmt export wrote, or a hub's name"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="texts at a time (default: %(default)s)")
    parser.add_argument("--trust", action="store_true", help="open model.pt2, which can run code")
    add_device_arguments(parser)


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the model runs on to a subcommand's parser."""
    parser.add_argument("--device", help="default: a GPU where there is one")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16", "float16"))


def open_model(options: argparse.Namespace) -> Classifier:
    """Return the model of a subcommand's arguments.

    Raises:
        ValueError: there is no such model, or it can't be run as the arguments say.
    """
    from ptmt_lightning.inference import Classifier

    return Classifier.from_pretrained(
        options.model, device=options.device, precision=options.precision, trust=options.trust
    )
