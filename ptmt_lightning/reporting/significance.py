"""Is one configuration better than another beyond chance?

Of which documents were tested: the paired bootstrap. Of which seeds were trained: Student's t-test paired by seed, and
Welch's. Of both: the bootstrap that draws seeds and documents.

Shape legend: ``R`` resamples, ``S`` runs of a configuration, ``N`` documents, ``V`` labels.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from ptmt_lightning.metrics import Classes, macro, micro
from ptmt_lightning.run_folder.finished import Run
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.taxonomy import Taxonomy

METRICS: dict[str, Callable[[Tensor, Classes], Tensor]] = {
    "h_f1_macro": lambda counts, classes: macro(counts, classes).f1,
    "h_f1_micro": lambda counts, classes: micro(counts).f1,
}
# R = 2000 resamples, drawn 100 at a time: memory stays at 100 times N and V. The least p, 2 / (R + 1), stays below 0.05
# where it is corrected for up to fifty comparisons.
_CHUNKS, _CHUNK = 20, 100
_NO_SPREAD = 1e-9  # differences between seeds below this are rounding


class Resampled(NamedTuple):
    """Scores of a configuration's runs."""

    folder: Path  # of its first run
    seeds: list[int]  # of each run
    measured: Tensor  # [S], on the documents as they are
    drawn: Tensor  # [S, R], on documents drawn anew, with replacement
    documents: str  # digest of documents, labels and truth: only equal ones can be compared


class Comparison(NamedTuple):
    """The difference between a configuration and a baseline, by one test."""

    difference: float  # of the means over runs
    low: float  # lower end of its 95 % interval
    high: float
    p: float  # two-sided
    p_holm: float  # corrected for the comparisons that a report makes with this test
    num_comparisons: int  # so many


def resample(runs: Sequence[Run], metric: str) -> Resampled:
    """Score the runs on documents drawn anew, the same ones for every configuration (Koehn 2004).

    Raises:
        ValueError: a run has no saved predictions or broken ones, or the runs were tested on different documents.
    """
    read = [_scores(run, metric) for run in runs]
    for run, (_, documents) in zip(runs, read, strict=True):
        if documents != read[0][1]:
            raise ValueError(_other_documents(run.folder, runs[0].folder))
    scores = torch.stack([scores for scores, _ in read])
    return Resampled(runs[0].folder, [run.result["seed"] for run in runs], scores[:, 0], scores[:, 1:], read[0][1])


def compare_documents(ours: Resampled, baseline: Resampled) -> Comparison:
    """Compare two configurations by the paired bootstrap: might other test documents have turned the sign?

    The chance of other seeds is not in it.

    Raises:
        ValueError: the two were tested on different documents.
    """
    _check_same_documents(ours, baseline)
    return _bootstrapped(ours.measured.mean() - baseline.measured.mean(), ours.drawn.mean(0) - baseline.drawn.mean(0))


def compare_both(ours: Resampled, baseline: Resampled) -> Comparison:
    """Compare two configurations by a bootstrap of both levels: might other seeds and documents have turned the sign?

    Each resample draws seeds and, once for all of these, documents, on which all runs were tested. Seeds that both
    sides have are drawn together; where there are fewer than two of them, each side's are drawn alone. One seed fewer
    is drawn than there are, which makes the variance of seeds right (Rao and Wu 1988). What a run alone gets wrong of a
    document counts twice, which widens the interval (Owen 2007); with few seeds it may still be too narrow.

    Raises:
        ValueError: a side has a single seed, or the two were tested on different documents.
    """
    _check_same_documents(ours, baseline)
    sides = [{seed: row for row, seed in enumerate(side.seeds)} for side in (ours, baseline)]
    shared = _shared_seeds(*sides)
    rows = [torch.tensor([side[seed] for seed in shared or side]) for side in sides]
    num_resamples = ours.drawn.shape[1]
    generator = torch.Generator().manual_seed(1)  # another seed than that of the documents
    chosen = [torch.randint(len(of), (num_resamples, len(of) - 1), generator=generator) for of in rows]
    if shared:
        chosen[1] = chosen[0]
    resamples = torch.arange(num_resamples)[:, None]
    first, second = (
        (side.measured[of].mean(), side.drawn[of[seeds], resamples].mean(1))
        for side, of, seeds in zip((ours, baseline), rows, chosen, strict=True)
    )
    return _bootstrapped(first[0] - second[0], first[1] - second[1])


def compare_seeds(ours: Mapping[int, float], baseline: Mapping[int, float]) -> Comparison:
    """Compare two configurations by Student's t-test, paired by the seeds that both have.

    Runs of one seed drew the same part of the training set.

    Args:
        ours: the score of each seed, see :func:`seed_scores`.
        baseline: those of the other.

    Raises:
        ValueError: a side has a single seed, fewer than two are shared, or seeds make no difference.
    """
    shared = _shared_seeds(ours, baseline)
    if not shared:
        raise ValueError("fewer than two seeds are shared")
    found = np.array([ours[seed] - baseline[seed] for seed in shared])
    return _student(found.mean(), found.var(ddof=1) / len(found), len(found) - 1)


def compare_unpaired(ours: Mapping[int, float], baseline: Mapping[int, float]) -> Comparison:
    """Compare two configurations by Welch's t-test, whichever their seeds are.

    Args:
        ours: the score of each seed, see :func:`seed_scores`.
        baseline: those of the other.

    Raises:
        ValueError: a side has a single seed, or seeds make no difference.
    """
    _shared_seeds(ours, baseline)
    one, other = (np.array(list(side.values())) for side in (ours, baseline))
    variances = one.var(ddof=1) / len(one), other.var(ddof=1) / len(other)
    parts = variances[0] ** 2 / (len(one) - 1) + variances[1] ** 2 / (len(other) - 1)
    # The degrees of freedom of Welch and Satterthwaite.
    return _student(one.mean() - other.mean(), sum(variances), sum(variances) ** 2 / parts if parts else 1)


def seed_scores(runs: Sequence[Run], metric: str, split: str) -> dict[int, float]:
    """Return the score of each seed; runs without one are left out."""
    scores = {run.result["seed"]: run.result[split].get(metric) for run in runs}
    return {seed: score for seed, score in scores.items() if score is not None and math.isfinite(score)}


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979), in the order given."""
    corrected, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def _shared_seeds(ours: Mapping[int, object], baseline: Mapping[int, object]) -> list[int]:
    """Return the seeds that both have, none where there are fewer than two.

    Raises:
        ValueError: a side has a single seed.
    """
    if min(len(ours), len(baseline)) < 2:
        raise ValueError("one side has a single seed")
    shared = [seed for seed in ours if seed in baseline]
    return shared if len(shared) > 1 else []


def _bootstrapped(measured: Tensor, drawn: Tensor) -> Comparison:
    """Return what differences on resamples ``[R]`` say of the difference that was measured."""
    low, high = drawn.quantile(drawn.new_tensor([0.025, 0.975])).tolist()
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return _single(measured.item(), low, high, min(1.0, 2 * (tail + 1) / (len(drawn) + 1)))


def _student(difference: float, variance: float, freedom: float) -> Comparison:
    """Return what Student's distribution says of a difference of means with this variance."""
    error = math.sqrt(variance)
    if error < _NO_SPREAD:
        raise ValueError("seeds make no difference")
    half = error * stats.t.ppf(0.975, freedom)
    p = 2 * stats.t.sf(abs(difference) / error, freedom)
    return _single(float(difference), float(difference - half), float(difference + half), float(p))


def _single(difference: float, low: float, high: float, p: float) -> Comparison:
    return Comparison(difference, low, high, p, p_holm=p, num_comparisons=1)


def _check_same_documents(ours: Resampled, baseline: Resampled) -> None:
    if ours.documents != baseline.documents:
        raise ValueError(_other_documents(ours.folder, baseline.folder))


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
    known = run.result["test"].get(metric)
    if known is None:
        raise ValueError(f"{run.folder} has no {metric}")
    if abs(scores[0].item() - known) > 1e-6:
        raise ValueError(
            f"{run.folder}: predictions.jsonl gives {metric}={scores[0]:.6f}, result.json has {known:.6f}; "
            "test it again"
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
