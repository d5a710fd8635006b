"""Is one configuration better than another beyond the chance of which documents were tested? A paired bootstrap.

Shape legend: ``R`` resamples, ``N`` documents, ``V`` labels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import pandas as pd
import torch
from torch import Tensor

from ptmt_lightning.metrics import Classes, macro, micro
from ptmt_lightning.reporting.runs import Run

_CHUNK = 100  # resamples at a time: memory stays at so many times N and V
_METRICS: dict[str, Callable[[Tensor, Classes], Tensor]] = {
    "h_f1_macro": lambda counts, classes: macro(counts, classes).f1,
    "h_f1_micro": lambda counts, classes: micro(counts).f1,
}


class Comparison(NamedTuple):
    """Of a configuration with a baseline."""

    difference: float  # of the means over seeds
    low: float  # of its 95 % interval
    high: float
    p: float  # two-sided


def compare(
    ours: Sequence[Run], baseline: Sequence[Run], *, metric: str, samples: int = 1000, seed: int = 0
) -> Comparison:
    """Draw the test documents anew, with replacement, the same ones for both sides (Koehn 2004).

    A side's score is the mean over its runs; what other seeds would give is not in the interval.

    Raises:
        ValueError: a run has no saved predictions, or of other documents, or the metric does not follow from them.
    """
    if metric not in _METRICS:
        raise ValueError(f"--baseline: {metric} can't be had from saved predictions; order by {' or '.join(_METRICS)}")
    sides = [[_Tested(run) for run in side] for side in (ours, baseline)]
    first = sides[0][0]
    for tested in (*sides[0], *sides[1]):
        if tested.ids != first.ids:
            raise ValueError(f"{tested.folder} was not tested on the documents of {first.folder}")
    generator = torch.Generator().manual_seed(seed)
    measured = torch.ones(1, len(first.ids))
    parts = [
        torch.stack([torch.stack([tested.score(w, metric) for tested in side]).mean(0) for side in sides])
        for w in (measured, *_resamples(len(first.ids), samples, generator))
    ]
    (difference,), drawn = (parts[0][0] - parts[0][1]).tolist(), torch.cat([a - b for a, b in parts[1:]])
    low, high = drawn.quantile(drawn.new_tensor([0.025, 0.975])).tolist()
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return Comparison(difference, low, high, min(1.0, 2 * (tail + 1) / (samples + 1)))


def _resamples(num_documents: int, samples: int, generator: torch.Generator) -> Iterator[Tensor]:
    """How often each document was drawn, ``[R, N]`` float32."""
    for start in range(0, samples, _CHUNK):
        size = min(_CHUNK, samples - start)
        drawn = torch.randint(num_documents, (size, num_documents), generator=generator)
        yield torch.zeros(size, num_documents).scatter_add_(1, drawn, torch.ones(()).expand_as(drawn))


class _Tested:
    """What a run predicted and what is true, with all ancestors, ``[N, V]`` float32."""

    def __init__(self, run: Run) -> None:
        self.folder = run.folder
        self.classes = cast(Classes, run.settings.get("model.metric_classes", "present"))
        if not (run.folder / "predictions.jsonl").exists():
            raise ValueError(f"{run.folder} has no predictions.jsonl, as a run with test=true leaves")
        try:
            self.ids, self.true, self.predicted = _read(run.folder)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{run.folder}: predictions.jsonl or per_label.csv is broken ({error!r})") from error

    def score(self, weights: Tensor, metric: str) -> Tensor:
        """The metric ``[R]`` with documents counted by ``weights`` ``[R, N]``."""
        hits, predicted, true = (weights @ of for of in (self.true * self.predicted, self.predicted, self.true))
        return _METRICS[metric](torch.stack([hits, predicted - hits, true - hits]), self.classes)


def _read(folder: Path) -> tuple[list[str], Tensor, Tensor]:
    """Ids of documents, and their true and predicted labels."""
    labels = pd.read_csv(folder / "per_label.csv", keep_default_na=False, dtype={"label": str})["label"]
    index = {label: node for node, label in enumerate(labels)}
    with (folder / "predictions.jsonl").open(encoding="utf-8") as file:
        documents = [json.loads(line) for line in file]
    true, predicted = torch.zeros(2, len(documents), len(index))
    for row, document in enumerate(documents):
        true[row, [index[label] for path in document["labels"] for label in path]] = 1
        predicted[row, [index[label] for path in document["predicted"] for label in path["path"]]] = 1
    return [document["id"] for document in documents], true, predicted
