"""Calibrates finished runs on validation, and measures the errors before and after on validation and test.

    python experiments/calibration/calibrate.py RUN/model DATA [RUN/model DATA ...] --csv results.csv

Errors: ``all`` is the expected calibration error of all labels of all documents (twenty ranges of probability),
``top`` that of the most probable label of each level alone; ``brier`` is the mean squared distance of all labels.
``changed`` counts documents whose predicted labels differ from those before.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from ptmt_lightning.calibration import CALIBRATIONS
from ptmt_lightning.data.document import Example
from ptmt_lightning.decisions import DecisionRule
from ptmt_lightning.inference import Classifier
from ptmt_lightning.inference.evaluate import documents_of
from ptmt_lightning.metrics import HierarchicalMetrics
from ptmt_lightning.training.fit_rule import fit_rule

_RANGES = 20


def main() -> None:
    """Measure all runs, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", type=Path, metavar="MODEL DATA")
    parser.add_argument("--csv", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    for model, data in zip(options.pairs[::2], options.pairs[1::2], strict=True):
        classifier = Classifier.from_pretrained(model, device="cpu")
        scored = {split: _scored(classifier, data, split) for split in ("val", "test")}
        plain = replace(classifier.rule, calibration=None)
        rules = {"none": plain} | {
            method: fit_rule(plain, *scored["val"], tuning=None, calibrate=method)  # type: ignore[arg-type]
            for method in CALIBRATIONS
        }
        for split, (logits, targets) in scored.items():
            before = plain.predict(plain.probabilities(logits))
            for method, rule in rules.items():
                row = {"dataset": data.name, "run": model.parent.name, "split": split, "calibration": method}
                rows.append(row | _measured(rule, logits, targets, before))
        pd.DataFrame(rows).round(5).to_csv(options.csv, index=False)
    print(
        pd.DataFrame(rows).drop(columns="run").groupby(["dataset", "split", "calibration"], sort=False).mean().round(4)
    )


def _scored(classifier: Classifier, data: Path, split: str) -> tuple[Tensor, Tensor]:
    """Return the scores (logits) and the true nodes of a split, ``[N, V]`` each."""
    documents = list(documents_of(data, split, classifier.taxonomy))
    ids = classifier.token_ids([document.text for document in documents])
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    logits = torch.empty(len(documents), len(classifier.taxonomy))
    targets = torch.zeros(logits.shape, dtype=torch.bool)
    for row, document in enumerate(documents):
        targets[row, list(document.nodes)] = True
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        batch = classifier.collate([Example(row, 0, _array(ids[row]), _array([])) for row in rows])
        with torch.inference_mode():
            logits[rows] = classifier.score(batch).float()
    return logits, targets


def _array(values: list[int]) -> npt.NDArray[np.int32]:
    return np.array(values, dtype=np.int32)


def _measured(rule: DecisionRule, logits: Tensor, targets: Tensor, before: Tensor) -> dict[str, float]:
    probabilities = rule.probabilities(logits)
    predicted = rule.predict(probabilities)
    metrics = HierarchicalMetrics(rule.taxonomy)
    metrics.update(predicted, targets, probabilities)
    values = metrics.compute().values
    best = [level.max(dim=-1) for level in probabilities.split(list(rule.taxonomy.level_sizes), dim=-1)]
    levels = targets.split(list(rule.taxonomy.level_sizes), dim=-1)
    right = [true.gather(1, found.indices[:, None])[:, 0] for found, true in zip(best, levels, strict=True)]
    return {
        "all": _error(probabilities.flatten(), targets.flatten()),
        "top": _error(torch.cat([found.values for found in best]), torch.cat(right)),
        "brier": (probabilities - targets.float()).square().mean().item(),
        "changed": int((predicted != before).any(dim=-1).sum()),
        "h_f1_macro": values["h_f1_macro"],
        "h_auprc": values["h_auprc"],
    }


def _error(probabilities: Tensor, true: Tensor) -> float:
    ranges = (probabilities * _RANGES).long().clamp_max(_RANGES - 1)
    distance = torch.zeros(_RANGES, dtype=torch.double).index_add_(0, ranges, (probabilities - true.float()).double())
    return distance.abs().sum().item() / len(probabilities)


if __name__ == "__main__":
    main()
