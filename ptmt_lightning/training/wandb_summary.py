"""What Weights & Biases keeps of a finished run beside its curves: summary, tables, pictures, artifacts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import wandb

from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.training.loggers import RunWandbLogger

# Entries of result.json. W&B has description and seed in the configuration, versions in its own requirements.txt.
_SUMMARY = (
    "best_checkpoint", "best_score", "epochs", "steps", "seconds", "num_documents", "num_parameters", "num_devices",
    "precision", "device", "thresholds", "git_sha", "git_dirty",
)  # fmt: skip


def records_of(
    logger: RunWandbLogger,
    folder: RunFolder,
    result: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame],
    split_ids: Callable[[], Mapping[str, Sequence[str]]],
) -> dict[str, Callable[[], object]]:
    """Return functions that each log to W&B a part of what is known when a run has ended, by what that part is.

    They are to be called on rank 0.

    Args:
        logger: the logger of the run.
        folder: the folder of the run, with its pictures and its model.
        result: the content of ``result.json``.
        tables: the tables to log, by the name that W&B shows.
        split_ids: returns the ids of the documents of each split.
    """
    return {
        "summary": lambda: logger.experiment.summary.update(summary(result)),
        **{name: partial(logger.log_table, name, dataframe=table) for name, table in tables.items()},
        **{
            name: partial(logger.log_image, name, [str(picture)])
            for picture in sorted(folder.figures.glob("*.png"))
            for name in (f"figures/{picture.stem}",)
        },
        "ids of the splits": lambda: logger.experiment.log_artifact(_split_artifact(result["dataset"], split_ids())),
        "model": lambda: logger.experiment.log_artifact(
            _model_artifact(folder.model, result, upload=logger.upload_model)
        ),
    }


def summary(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values by which W&B compares runs: ``test/*``, ``best/*``, ``label_embeddings/*`` and single ones.

    ``best/*`` are the validation scores in ``result.json``. The name ``val/*`` belongs to the curves, of which W&B
    keeps the highest point, for each metric by itself.
    """
    groups = {"best": result["val"], "test": result["test"], "label_embeddings": result["label_embeddings"] or {}}
    values = {f"{group}/{name}": value for group, scores in groups.items() for name, value in scores.items()}
    return values | {name: result[name] for name in _SUMMARY}


def _split_artifact(dataset: str, split_ids: Mapping[str, Sequence[str]]) -> wandb.Artifact:
    # One name for a data set: W&B makes a new version only for other ids, so equal versions mean equal splits.
    sizes = {split: len(ids) for split, ids in split_ids.items()}
    name = re.sub(r"[^-.\w]", "-", dataset, flags=re.ASCII)  # W&B takes no other characters
    artifact = wandb.Artifact(f"{name}-splits", "split-ids", metadata=sizes)
    with artifact.new_file("split_ids.json") as file:
        json.dump(split_ids, file)
    return artifact


def _model_artifact(folder: Path, result: Mapping[str, Any], *, upload: bool) -> wandb.Artifact:
    """Return an artifact with checksums and places of the model's files; with ``upload``, the files themselves."""
    scores = {name: result[name] for name in ("best_score", "val", "test")}
    artifact = wandb.Artifact(f"model-{result['wandb_run_id']}", "model", metadata=scores)
    for path in sorted(path for path in folder.absolute().rglob("*") if path.is_file()):
        name = path.relative_to(folder.absolute()).as_posix()
        if upload:
            artifact.add_file(str(path), name=name, policy="immutable")  # the other policy makes a copy on disk
        else:
            artifact.add_reference(path.as_uri(), name=name)
    return artifact
