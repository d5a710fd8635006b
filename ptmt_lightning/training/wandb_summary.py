"""What Weights & Biases keeps of a finished run beside its curves: summary, tables, pictures, artifacts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import wandb

from ptmt_lightning.training.loggers import RunWandbLogger

# Of result.json; the description and the seed are in the configuration, the versions in W&B's own requirements.txt.
_SUMMARY = (
    "best_checkpoint", "best_score", "epochs", "steps", "seconds", "num_documents", "num_parameters", "num_devices",
    "precision", "device", "thresholds", "git_sha", "git_dirty",
)  # fmt: skip


def log_finished(
    logger: RunWandbLogger,
    run_dir: Path,
    result: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame],
    split_ids: Mapping[str, Sequence[str]],
) -> None:
    """Log what is known at the end, on rank 0.

    Args:
        run_dir: with ``figures/`` and ``model/``.
        result: the content of ``result.json``.
        split_ids: the ids of the documents of each split.
    """
    logger.experiment.summary.update(summary(result))
    for name, table in tables.items():
        logger.log_table(name, dataframe=table)
    for picture in sorted((run_dir / "figures").glob("*.png")):
        logger.log_image(f"figures/{picture.stem}", [str(picture)])
    logger.experiment.log_artifact(_split_artifact(result["dataset"], split_ids))
    logger.experiment.log_artifact(_model_artifact(run_dir / "model", result, upload=logger.upload_model))


def summary(result: Mapping[str, Any]) -> dict[str, Any]:
    """What runs are compared by: ``test/*``, ``best/*`` (``val`` of ``result.json``), and single values.

    ``val/*`` is of the curves: their highest point, each metric by itself.
    """
    groups = {"best": result["val"], "test": result["test"], "label_embeddings": result["label_embeddings"] or {}}
    values = {f"{group}/{name}": value for group, scores in groups.items() for name, value in scores.items()}
    return values | {name: result[name] for name in _SUMMARY}


def _split_artifact(dataset: str, split_ids: Mapping[str, Sequence[str]]) -> wandb.Artifact:
    # One name a data set: W&B makes a new version only for other ids, so equal versions are equal splits.
    sizes = {split: len(ids) for split, ids in split_ids.items()}
    name = re.sub(r"[^-.\w]", "-", dataset, flags=re.ASCII)  # of what W&B takes
    artifact = wandb.Artifact(f"{name}-splits", "split-ids", metadata=sizes)
    with artifact.new_file("split_ids.json") as file:
        json.dump(split_ids, file)
    return artifact


def _model_artifact(folder: Path, result: Mapping[str, Any], *, upload: bool) -> wandb.Artifact:
    """Checksums and places of the files; with ``upload`` the files themselves, read where they lie."""
    scores = {name: result[name] for name in ("best_score", "val", "test")}
    artifact = wandb.Artifact(f"model-{result['wandb_run_id']}", "model", metadata=scores)
    for path in sorted(path for path in folder.absolute().rglob("*") if path.is_file()):
        name = path.relative_to(folder.absolute()).as_posix()
        if upload:
            artifact.add_file(str(path), name=name, policy="immutable")  # the other policy makes a copy on disk
        else:
            artifact.add_reference(path.as_uri(), name=name)
    return artifact
