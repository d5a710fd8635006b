"""The command ``ptmt push``, which uploads a trained model to a model hub."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ptmt push`` to its parser."""
    parser.add_argument("model", metavar="MODEL", help="model/ folder of a run, or what ptmt export wrote")
    parser.add_argument("name", metavar="OWNER/NAME", help="of the hub's repository; made where there is none")
    parser.add_argument("--private", action="store_true", help="where the repository is made: for its owner alone")
    parser.set_defaults(run=_push)


def _push(options: argparse.Namespace) -> None:
    from ptmt_lightning.inference.model_folder import ModelFolder
    from ptmt_lightning.inference.publishing import push_model

    url = push_model(ModelFolder.open(options.model), options.name, private=options.private)
    print(f"{url}: opens with Classifier.from_pretrained({options.name!r})")
