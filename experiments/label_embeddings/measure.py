"""Measures how often a label token's nearest neighbour is its sibling, before and after training, in finished runs.

    python experiments/label_embeddings/measure.py RUN_FOLDER...

Runs of one data set, variant and share of the training set are averaged over seeds; the map of the last run is copied
beside the results.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pandas as pd

HERE = Path(__file__).parent


def main() -> None:
    """Average the measures of the runs over seeds, and write ``results.csv`` and ``label_map.png``.

    Raises:
        SystemExit: a run is of a system without label embeddings.
    """
    rows: list[dict[str, str | float]] = []
    for run in map(Path, sys.argv[1:]):
        result = json.loads((run / "result.json").read_text())
        if result["label_embeddings"] is None:
            sys.exit(f"error: {run}: model {result['model']} has no label embeddings")
        name = f"{result['dataset']} {result['variant'] or result['model']} {result['train_fraction']:g}"
        rows += [{"measure": key, "setting": name, "value": value} for key, value in result["label_embeddings"].items()]
    shutil.copy(run / "figures/label_map.png", HERE / "label_map.png")
    grouped = pd.DataFrame(rows).groupby(["measure", "setting"], sort=False)["value"]
    table = grouped.agg(value="mean", spread="std", seeds="count").reset_index()
    table.insert(3, "unit", "share")
    table.to_csv(HERE / "results.csv", index=False, float_format="%.4f")
    print(table.to_string())


if __name__ == "__main__":
    main()
