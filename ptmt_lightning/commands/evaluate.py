"""The command ``ptmt evaluate``, which scores a saved model on labelled data."""

from __future__ import annotations

import argparse
from pathlib import Path

from ptmt_lightning.commands.arguments import add_model_arguments, open_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ptmt evaluate`` to its parser."""
    add_model_arguments(parser)
    parser.add_argument("data", type=Path, metavar="DATA", help="a data folder, or one file of labelled JSON lines")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"), help="of a folder (default: test)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER",
        help="for evaluation.json, predictions.jsonl, per_label.csv, reliability.csv and figures "
        "(default: evaluations/DATA-SPLIT)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier evaluation left in FOLDER")
    parser.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    from ptmt_lightning.inference.evaluate import documents_of, evaluate, labelled_file
    from ptmt_lightning.run_folder.ending import show_scores
    from ptmt_lightning.run_folder.evaluation import check_folder, write_evaluation

    split = labelled_file(options.data, options.split).name.split(".")[0]
    name = options.data.resolve().name if options.data.is_dir() else split
    target = options.output or Path("evaluations", name if split == name else f"{name}-{split}")
    check_folder(target, overwrite=options.overwrite)
    classifier = open_model(options)
    documents = documents_of(options.data, options.split, classifier.taxonomy)
    evaluation = evaluate(classifier, documents, batch_size=options.batch_size)
    description = {"dataset": name, "split": split, "model": options.model}
    write_evaluation(target, description, classifier.rule, *evaluation)
    show_scores(f"{name} / {options.model}", {split: evaluation.metrics.values})
    print(f"evaluation: {target}")
