"""Paired bootstrap: is one configuration better than another beyond the chance of which documents were tested?

Shape legend: ``R`` resamples, ``N`` documents, ``V`` labels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor

from ptmt_lightning.metrics import Classes, macro, micro
from ptmt_lightning.run_folder.finished import Run
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.taxonomy import Taxonomy

METRICS: dict[str, Callable[[Tensor, Classes], Tensor]] = {
    "h_f1_macro": lambda counts, classes: macro(counts, classes).f1,
    "h_f1_micro": lambda counts, classes: micro(counts).f1,
}
_CHUNKS, _CHUNK = 10, 100  # R = 1000 resamples, drawn 100 at a time: memory stays at 100 times N and V


class Resampled(NamedTuple):
    """Scores of a configuration, as means over its runs."""

    folder: Path  # of its first run
    measured: float  # on the documents as they are
    drawn: Tensor  # [R], on documents drawn anew, with replacement
    documents: str  # digest of documents, labels and truth: only equal ones can be compared


class Comparison(NamedTuple):
    """The difference between a configuration and a baseline."""

    difference: float  # of the means over seeds
    low: float  # lower end of its 95 % interval
    high: float
    p: float  # two-sided


def resample(runs: Sequence[Run], metric: str) -> Resampled:
    """Score the runs on documents drawn anew, the same ones for every configuration (Koehn 2004).

    Raises:
        ValueError: a run has no saved predictions or broken ones, or the runs were tested on different documents.
    """
    read = [_scores(run, metric) for run in runs]
    for run, (_, documents) in zip(runs, read, strict=True):
        if documents != read[0][1]:
            raise ValueError(_other_documents(run.folder, runs[0].folder))
    scores = torch.stack([scores for scores, _ in read]).mean(0)
    return Resampled(runs[0].folder, scores[0].item(), scores[1:], read[0][1])


def compare(ours: Resampled, baseline: Resampled) -> Comparison:
    """Return the difference of two configurations, with its interval and p-value.

    Both say whether other test documents might have turned the sign; the chance of other seeds is not in them.

    Raises:
        ValueError: the two were tested on different documents.
    """
    if ours.documents != baseline.documents:
        raise ValueError(_other_documents(ours.folder, baseline.folder))
    drawn = ours.drawn - baseline.drawn
    low, high = drawn.quantile(drawn.new_tensor([0.025, 0.975])).tolist()
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return Comparison(ours.measured - baseline.measured, low, high, min(1.0, 2 * (tail + 1) / (len(drawn) + 1)))


def _other_documents(one: Path, other: Path) -> str:
    return f"{one} was not tested on the documents and labels of {other}"


def _scores(run: Run, metric: str) -> tuple[Tensor, str]:
    """Return a run's scores ``[1 + R]``, the first one on the original documents, and a digest of documents and truth.

    Raises:
        ValueError: a file is missing or broken, or the predictions do not give the score in ``result.json``.
    """
    folder = RunFolder(run.folder)
    taxonomy_file = folder.model / "taxonomy.json"
    for file in (taxonomy_file, folder.predictions):
        if not file.exists():
            raise ValueError(f"{run.folder} lacks {file.name}, as a run with test=true leaves")
    try:
        taxonomy = Taxonomy.from_json(taxonomy_file)
        ids, true, predicted = _read(folder.predictions, taxonomy)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{run.folder}: predictions.jsonl or taxonomy.json is broken ({error!r})") from error
    counted = [nodes.float() for nodes in (true & predicted, predicted, true)]
    classes = cast(Classes, run.settings.get("model.metric_classes", "present"))
    parts = []
    for weights in (torch.ones(1, len(ids)), *_resamples(len(ids))):
        hits, found, present = (weights @ nodes for nodes in counted)
        parts.append(METRICS[metric](torch.stack([hits, found - hits, present - hits]), classes))
    scores = torch.cat(parts)
    if abs(scores[0].item() - run.result["test"][metric]) > 1e-6:
        raise ValueError(
            f"{run.folder}: predictions.jsonl gives {metric}={scores[0]:.6f}, result.json has "
            f"{run.result['test'][metric]:.6f}; test it again"
        )
    return scores, hashlib.sha256(repr((ids, taxonomy.names)).encode() + true.numpy().tobytes()).hexdigest()


def _resamples(num_documents: int) -> Iterator[Tensor]:
    """Yield how often each document was drawn, float32 ``[100, N]`` at a time, ``R`` in all; the same at each call."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(_CHUNKS):
        drawn = torch.randint(num_documents, (_CHUNK, num_documents), generator=generator)
        yield torch.zeros(_CHUNK, num_documents).scatter_add_(1, drawn, torch.ones(()).expand_as(drawn))


def _read(path: Path, taxonomy: Taxonomy) -> tuple[list[str], Tensor, Tensor]:
    """Return the ids of documents, and their true and predicted labels with all ancestors, bool ``[N, V]``."""
    with path.open(encoding="utf-8") as file:
        documents = [json.loads(line) for line in file]
    if not documents:
        raise ValueError("no documents")
    true, predicted = torch.zeros(2, len(documents), len(taxonomy), dtype=torch.bool)
    for row, document in enumerate(documents):
        true[row, [node for path in document["labels"] for node in taxonomy.path_nodes(path)]] = True
        predicted[row, [node for path in document["predicted"] for node in taxonomy.path_nodes(path["path"])]] = True
    return [document["id"] for document in documents], taxonomy.augment(true), taxonomy.augment(predicted)
