"""Finished runs made up for reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import OmegaConf

from ptmt_lightning.metrics import HierarchicalMetrics, per_label
from ptmt_lightning.taxonomy import Taxonomy

Edges = Sequence[tuple[str, str]]
Paths = Sequence[Sequence[str]]


def write_run(folder: Path, score: float, seed: int = 0, fingerprint: str | None = None, **settings: Any) -> Path:
    """A finished run; settings are dotted keys with ``__`` for the dot."""
    folder.mkdir(parents=True)
    config = OmegaConf.create(
        {
            "seed": seed, "resume": None, "logger": {"csv": {"save_dir": "${run.dir}"}},
            "dataset": {"name": "toy", "train_fraction": 1.0, "seed": "${seed}"}, "loss": {"margin": 0.05},
            "run": {"dir": str(folder), "model": "ptmt", "backbone": "hub/tiny", "loss": "wasl", "variant": None},
            "callbacks": {"checkpoint": {"dirpath": "${run.dir}/checkpoints"}},
        }
    )  # fmt: skip
    for key, value in settings.items():
        OmegaConf.update(config, key.replace("__", "."), value, force_add=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
    scores = {"h_f1_macro": score, "h_f1_micro": score / 2, "h_auprc": 0.5}
    result = {
        "dataset": config.dataset.name, "model": "ptmt", "seed": seed, "val": {k: v + 0.1 for k, v in scores.items()},
        "test": scores, "seconds": {"fit": 120.0},
    }  # fmt: skip
    if fingerprint is not None:
        result["dataset_fingerprint"] = fingerprint
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def write_predictions(folder: Path, edges: Edges, documents: Mapping[str, tuple[Paths, Paths]]) -> None:
    """What a test leaves: of each document its true and its predicted paths; and the scores of these."""
    taxonomy = Taxonomy(edges)
    (folder / "model").mkdir()
    taxonomy.to_json(folder / "model/taxonomy.json")
    lines = [
        json.dumps({"id": name, "labels": true, "predicted": [{"path": path} for path in predicted]})
        for name, (true, predicted) in documents.items()
    ]
    (folder / "predictions.jsonl").write_text("".join(line + "\n" for line in lines))
    true, predicted = torch.zeros(2, len(documents), len(taxonomy), dtype=torch.bool)
    for row, sides in enumerate(documents.values()):
        for target, paths in zip((true, predicted), sides, strict=True):
            target[row, [taxonomy.index[label] for path in paths for label in path]] = True
    metrics = HierarchicalMetrics(taxonomy)
    metrics.update(predicted, true, predicted.float())
    found = metrics.compute()
    pd.DataFrame(per_label(taxonomy, found.flat_counts)).to_csv(folder / "per_label.csv", index=False)
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(result | {"test": found.values}))
