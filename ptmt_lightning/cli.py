"""The command ``ptmt`` with its subcommands: data, training, the use of trained models, reports."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

from ptmt_lightning.commands.train import train
from ptmt_lightning.utils.errors import reported_errors
from ptmt_lightning.utils.secrets import mask_logs
from ptmt_lightning.utils.streams import show_any_text

_COMMANDS = {
    "train": "train and test a configuration, or start a sweep or a search; ptmt train --help shows the settings",
    "dashboard": "views of a W&B project: runs side by side, trials of searches",
    "data": "make a data folder from a table; what is in it; download a benchmark",
    "evaluate": "score a saved model on labelled data",
    "explain": "which words of a text speak for and against its labels",
    "export": "write a trained model for CPUs: ONNX, OpenVINO or the faster of them; or a program of PyTorch",
    "push": "send a trained model to a model hub",
    "predict": "label paths for the texts of a file",
    "serve": "answer over HTTP, with a page to try it",
    "report": "compare runs: mean and deviation over seeds of each configuration",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command ``ptmt``.

    Args:
        arguments: what follows ``ptmt`` on the command line; None to read it from there.

    Raises:
        SystemExit: the command failed, with code 1 and one line, or with that of a bug; 2: the call was wrong; 130: it
            was interrupted.
    """
    show_any_text()
    arguments = sys.argv[1:] if arguments is None else arguments
    if "train" in arguments[:1]:  # Hydra parses what follows
        train(arguments[1:])
        return
    description = "Hierarchical text classification: data, training, use, reports."
    parser = argparse.ArgumentParser(prog="ptmt", description=description)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, text in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name in arguments[:1]:
            importlib.import_module(f"ptmt_lightning.commands.{name}").add_arguments(command)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("ptmt_lightning").setLevel(logging.INFO)
    mask_logs()
    with reported_errors():
        options.run(options)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
