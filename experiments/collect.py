"""Collects the scores of finished runs in an experiment's ``results.csv``, one row for each run and split.

python experiments/collect.py RUN_FOLDER... --out experiments/NAME/results.csv
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

SETTINGS = ("dataset", "model", "backbone", "variant", "seed", "train_fraction")
METRICS = (
    "h_f1_macro", "h_f1_macro_harmonic", "h_f1_micro", "h_precision_micro", "h_recall_micro", "h_auprc", "f1_macro",
    "f1_micro", "exact_match",
)  # fmt: skip


def rows(run: Path) -> list[dict[str, Any]]:
    """Return the rows of a finished run, one for each split with scores.

    Args:
        run: folder of the run.
    """
    result = json.loads((run / "result.json").read_text())
    config = OmegaConf.load(run / "config.yaml")
    ends = {
        "epochs": result["epochs"],
        "steps": result["steps"],
        "learning_rate": OmegaConf.select(config, "optimizer.learning_rate"),  # model=tfidf has none
        "new_rate_factor": OmegaConf.select(config, "optimizer.new_rate_factor"),
        "wall_seconds": round(sum(result["seconds"].values())),
        "device": f"{result['device']} x {result['num_threads']} threads",
        "git_sha": result["git_sha"],
    }
    settings = {key: result[key] for key in SETTINGS} | {"backbone": Path(result["backbone"]).name}
    return [
        settings | {"split": split} | {name: round(result[split][name], 4) for name in METRICS} | ends
        for split in ("val", "test")
        if result[split]
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    arguments = parser.parse_args()
    pd.DataFrame([row for run in arguments.runs for row in rows(run)]).to_csv(arguments.out, index=False)
