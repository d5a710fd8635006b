"""The command ``ptmt explain``, which shows the words that speak for and against the labels of a text."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ptmt_lightning.commands.arguments import add_device_arguments, open_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ptmt explain`` to its parser."""
    parser.add_argument("model", metavar="MODEL", help="model/ folder of a run, or its name on a hub")
    parser.add_argument("text", metavar="TEXT", help="the text itself")
    parser.add_argument(
        "--label",
        action="append",
        metavar="PATH",
        help='"A > B": explain this label, predicted or not; may be repeated',
    )
    parser.add_argument("--words", type=int, default=5, help="words that are named for and against (default: 5)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="write all words with their values, as JSON")
    form.add_argument("--html", type=Path, metavar="FILE", help="write a page with the words marked in the text")
    add_device_arguments(parser)
    parser.set_defaults(run=_explain, trust=False)


def _explain(options: argparse.Namespace) -> None:
    from ptmt_lightning.inference.explain import Explainer, describe
    from ptmt_lightning.inference.explain_page import explanation_page
    from ptmt_lightning.taxonomy.files import STEP
    from ptmt_lightning.utils.checks import check_range
    from ptmt_lightning.utils.files import write_text

    check_range("--words", options.words, 1, integer=True)
    labels = options.label and [[step.strip() for step in path.split(STEP.strip())] for path in options.label]
    found = Explainer(open_model(options)).explain(options.text, labels)
    if options.json:
        print(json.dumps([label.to_json() for label in found], ensure_ascii=False))
    elif options.html:
        write_text(options.html, explanation_page(options.text, found))
        print(f"{options.html}: open it in a browser")
    else:
        print(describe(found, options.words))
