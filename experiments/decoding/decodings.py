"""Scores the ways of choosing labels by their probabilities, on data where each document has one path.

    python experiments/decoding/decodings.py RUN/model DATA [--split val]

Thresholds are tuned on every other document of the split, and all ways are judged on the others.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from ptmt_lightning.decisions import DecisionRule
from ptmt_lightning.inference import Classifier
from ptmt_lightning.inference.evaluate import documents_of
from ptmt_lightning.metrics import HierarchicalMetrics
from ptmt_lightning.thresholds import Tuning, tune_thresholds

_SCORES = ("h_f1_macro", "h_f1_micro", "exact_match")


def main() -> None:
    """Print a row for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="val")
    options = parser.parse_args()
    classifier = Classifier.from_pretrained(options.model)
    taxonomy = classifier.taxonomy
    documents = list(documents_of(options.data, options.split, taxonomy))
    targets = torch.zeros(len(documents), len(taxonomy), dtype=torch.bool)
    for row, document in enumerate(documents):
        targets[row, list(document.nodes)] = True
    probabilities = classifier.probabilities([document.text for document in documents])
    chosen, judged = slice(0, None, 2), slice(1, None, 2)
    rule = replace(classifier.rule, decoding="threshold", top_k=None)
    rules = {"threshold 0.5": replace(rule, thresholds=(0.5,) * taxonomy.num_levels)}
    if not rule.decision.single_label:
        tunings: tuple[Tuning, ...] = ("global", "level")
        for tuning in tunings:
            found = tune_thresholds(
                probabilities[chosen], targets[chosen], taxonomy, tuning=tuning, prune=rule.prune, classes="present"
            )
            rules[f"threshold tuned ({tuning})"] = replace(rule, thresholds=tuple(found))
    inner = {parent for parents in taxonomy.parents for parent in parents}
    to_leaf = not any(_ends_above(document.nodes, taxonomy.parents, inner) for document in documents)
    rules["best path"] = replace(rule, decoding="best_path", to_leaf=to_leaf)
    rows = {name: _scores(way, probabilities[judged], targets[judged]) for name, way in rules.items()}
    print(f"{options.model}, {options.split}, paths end at leaves: {to_leaf}")
    print(pd.DataFrame(rows).T.to_string(float_format="%.4f"))


def _ends_above(nodes: tuple[int, ...], parents: tuple[tuple[int, ...], ...], inner: set[int]) -> bool:
    above = {parent for node in nodes for parent in parents[node]}
    return any(node in inner and node not in above for node in nodes)


def _scores(rule: DecisionRule, probabilities: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    metrics = HierarchicalMetrics(rule.taxonomy)
    predicted = rule.predict(probabilities)
    metrics.update(predicted, targets, probabilities)
    values = metrics.compute().values
    sizes = list(rule.taxonomy.level_sizes)
    labels = torch.stack([level.sum(dim=-1) for level in predicted.split(sizes, dim=-1)])
    return {name: values[name] for name in _SCORES} | {
        "no label": (labels.sum(dim=0) == 0).double().mean().item(),
        "several on a level": (labels > 1).any(dim=0).double().mean().item(),
    }


if __name__ == "__main__":
    main()
