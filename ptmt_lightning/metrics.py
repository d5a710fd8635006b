"""Hierarchical and flat metrics, computed from counts, which add up over batches and ranks.

Shape legend: ``B`` documents, ``V`` nodes.
Counts are int64 ``[3, V]``: true positives, false positives, false negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from ptmt_lightning.taxonomy import Taxonomy

Classes = Literal["present", "all"]

_NUM_BINS = 1000  # ranges of probabilities that h_auprc tells apart


class Scores(NamedTuple):
    """Precision, recall and F1, each 0 where its denominator is 0."""

    precision: Tensor
    recall: Tensor
    f1: Tensor


def count(predicted: Tensor, targets: Tensor) -> Tensor:
    """Count the true positives, false positives and false negatives of each node: int64 ``[3, V]``.

    Args:
        predicted: bool ``[B, V]``.
        targets: bool ``[B, V]``.
    """
    # Labels are few: sums over all of [B, V] take ten times as long.
    found, positive, true = (
        torch.bincount(labels.nonzero()[:, 1], minlength=labels.shape[1])
        for labels in (predicted & targets, predicted, targets)
    )
    return torch.stack([found, positive - found, true - found])


def scores(counts: Tensor) -> Scores:
    """Return precision, recall and F1 of counts ``[3, ...]``, each float64 ``[...]``."""
    tp, fp, fn = counts.double()
    return Scores(_ratio(tp, tp + fp), _ratio(tp, tp + fn), _ratio(2 * tp, 2 * tp + fp + fn))


def micro(counts: Tensor) -> Scores:
    """Return the scores of all classes together, each float64 ``[...]``, from counts ``[3, ..., V]``.

    Of augmented labels they are Eq. 4-5.
    """
    return scores(counts.sum(-1))


def macro(counts: Tensor, classes: Classes = "present") -> Scores:
    """Return the means of the per-class scores, each float64 ``[...]``; the F1 is the mean of per-class F1.

    Args:
        counts: ``[3, ..., V]``.
        classes: average over ``present`` classes, which occur in the truth or the predictions, or over ``all``.
    """
    per_class = scores(counts)
    counted = counts.sum(0) > 0 if classes == "present" else torch.ones_like(counts[0], dtype=torch.bool)
    size = counted.sum(-1).double()
    return Scores(*(_ratio(score.where(counted, 0.0).sum(-1), size) for score in per_class))


def harmonic(precision: Tensor, recall: Tensor) -> Tensor:
    """Return the harmonic mean of precision and recall, of any one shape, 0 where both are 0 (Eq. 8)."""
    return _ratio(2 * precision * recall, precision + recall)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator > 0, numerator / denominator.clamp_min(torch.finfo(torch.double).tiny), 0.0)


def average_precision(scored: Tensor) -> Tensor:
    """Return the area under the precision-recall curve (average precision) of binned scores.

    Args:
        scored: counts ``[2, bins]`` of true nodes and of others, by ascending score.
    """
    true, other = scored.flip(-1).cumsum(-1).double()  # nodes at or above each score, from the highest score down
    recall = _ratio(true, true[-1:])
    gained = recall.diff(prepend=recall.new_zeros(1))
    return (gained * _ratio(true, true + other)).sum()


def score_counts(taxonomy: Taxonomy, probabilities: Tensor, true: Tensor) -> Tensor:
    """Count true nodes and others by their probability, made coherent: int64 ``[2, bins]``, by ascending probability.

    Args:
        taxonomy: hierarchy of the nodes.
        probabilities: ``[B, V]``.
        true: bool ``[B, V]``, true nodes with all of their ancestors.
    """
    ranked = taxonomy.coherent(probabilities)
    ranked = ranked if taxonomy.is_tree else taxonomy.raised(ranked)
    bins = (ranked * _NUM_BINS).int().clamp_(0, _NUM_BINS - 1)
    of_true, of_all = (torch.bincount(scores.flatten(), minlength=_NUM_BINS) for scores in (bins[true], bins))
    return torch.stack([of_true, of_all - of_true])


class Counts(NamedTuple):
    """The counts over documents from which every metric is computed."""

    flat: Tensor  # int64 [3, V], counts of labels as they are
    augmented: Tensor  # int64 [3, V], counts of labels with all of their ancestors
    scored: Tensor  # int64 [2, bins], counts of true nodes and of others by ascending score
    num_exact: Tensor  # int64, documents with exactly their true labels predicted
    num_documents: Tensor  # int64
    classes: Classes  # classes that macro averages run over


# One line adds a metric: result.json, curves, W&B, `monitor` and `ptmt report --metrics` read its name from here.
METRICS: dict[str, Callable[[Counts], Tensor]] = {
    "h_f1_macro": lambda counts: macro(counts.augmented, counts.classes).f1,
    "h_f1_macro_harmonic": lambda counts: harmonic(*macro(counts.augmented, counts.classes)[:2]),
    "h_f1_micro": lambda counts: micro(counts.augmented).f1,
    "h_precision_micro": lambda counts: micro(counts.augmented).precision,
    "h_recall_micro": lambda counts: micro(counts.augmented).recall,
    "f1_macro": lambda counts: macro(counts.flat, counts.classes).f1,
    "f1_micro": lambda counts: micro(counts.flat).f1,
    "h_auprc": lambda counts: average_precision(counts.scored),
    "exact_match": lambda counts: _ratio(counts.num_exact.double(), counts.num_documents.double()),
}
# Metrics of one level, from the flat counts [3, nodes of the level]; reported names end in the level's number.
LEVEL_METRICS: dict[str, Callable[[Tensor, Classes], Tensor]] = {
    "f1_macro_level": lambda flat, classes: macro(flat, classes).f1,
    "f1_micro_level": lambda flat, classes: micro(flat).f1,
}


class MetricValues(NamedTuple):
    """The result of :meth:`HierarchicalMetrics.compute`."""

    values: dict[str, float]  # by name of the metric
    flat_counts: Tensor  # int64 [3, V], for :func:`per_label`
    scored: Tensor  # int64 [2, bins], for :func:`reliability`


class HierarchicalMetrics(Metric):
    """All metrics that are reported of one split.

    Those named ``h_*`` compare predictions and truth after both are augmented with all ancestors (Kiritchenko et al.
    2006). ``h_f1_macro`` is the mean of per-class F1, which the field reports; ``h_f1_macro_harmonic`` is the harmonic
    mean of macro precision and macro recall (Eq. 6-8), which is never lower. ``h_auprc`` needs no threshold: it is the
    area under the curve of micro h-precision over micro h-recall as the threshold of pruned predictions falls. The
    other metrics are flat: they compare labels as they are, overall and on each level (``f1_macro_level_1``, ...).

    Of a document without a label nothing can be found: what is predicted for it counts as false positives, and lowers
    precision and F1; nothing predicted is an exact match, and no part of any other count of labels.

    Args:
        taxonomy: hierarchy of the labels.
        classes: which classes macro averages run over, see :func:`macro`.

    Raises:
        ValueError: ``classes`` is neither ``present`` nor ``all``.

    Example:
        >>> taxonomy = Taxonomy([("ROOT", "A"), ("A", "AA"), ("A", "AB")])
        >>> metrics = HierarchicalMetrics(taxonomy)
        >>> predicted, true = torch.tensor([[True, True, False]]), torch.tensor([[True, False, True]])
        >>> metrics.update(predicted, true, predicted.float())
        >>> round(metrics.compute().values["h_f1_micro"], 3)
        0.5
    """

    full_state_update = False
    flat_counts: Tensor
    h_counts: Tensor
    num_exact: Tensor
    num_documents: Tensor
    scored: Tensor

    def __init__(self, taxonomy: Taxonomy, *, classes: Classes = "present") -> None:
        super().__init__()
        if classes not in ("present", "all"):
            raise ValueError(f"model.metric_classes={classes!r}: expected 'present' or 'all'")
        self.taxonomy, self.classes = taxonomy, classes
        for name, shape in {"flat_counts": (3, len(taxonomy)), "h_counts": (3, len(taxonomy))}.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("scored", torch.zeros(2, _NUM_BINS, dtype=torch.long), dist_reduce_fx="sum")
        for name in ("num_exact", "num_documents"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, targets: Tensor, probabilities: Tensor) -> None:
        """Add the counts of a batch of documents.

        Args:
            predicted: predicted nodes, bool ``[B, V]``, not augmented.
            targets: true nodes, bool ``[B, V]``, not augmented.
            probabilities: ``[B, V]``, those behind the predictions.
        """
        true = self.taxonomy.augment(targets)
        self.flat_counts += count(predicted, targets)
        self.h_counts += count(self.taxonomy.augment(predicted), true)
        self.scored += score_counts(self.taxonomy, probabilities, true)
        self.num_exact += (predicted == targets).all(dim=-1).sum()
        self.num_documents += predicted.shape[0]

    def compute(self) -> MetricValues:
        """Return the metrics over all documents of all ranks, in float64 arithmetic."""
        counts = Counts(
            self.flat_counts, self.h_counts, self.scored, self.num_exact, self.num_documents, self.classes
        )  # fmt: skip
        result = {name: metric(counts) for name, metric in METRICS.items()}
        for level, nodes in enumerate(self.taxonomy.level_slices, start=1):
            for name, level_metric in LEVEL_METRICS.items():
                result[f"{name}_{level}"] = level_metric(self.flat_counts[:, nodes], self.classes)
        values = {name: value.item() for name, value in result.items()}
        return MetricValues(values, self.flat_counts.clone(), self.scored.clone())


def per_label(taxonomy: Taxonomy, flat_counts: Tensor) -> list[dict[str, Any]]:
    """Return one row a node: ``label, level, support, predicted, precision, recall, f1``, of flat counts ``[3, V]``."""
    counts = flat_counts.cpu()
    columns = {
        "label": taxonomy.names,
        "level": taxonomy.levels,
        "support": (counts[0] + counts[2]).tolist(),
        "predicted": (counts[0] + counts[1]).tolist(),
        **{name: score.tolist() for name, score in scores(counts)._asdict().items()},
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def reliability(scored: Tensor, num_bins: int = 20) -> list[dict[str, float]]:
    """Return how often labels of about the same probability are true, one row a range of probabilities.

    The probabilities are those that ``h_auprc`` ranks.

    Args:
        scored: counts ``[2, bins]`` of true nodes and of others, by ascending score.
        num_bins: number of ranges, a divisor of ``bins``.

    Returns:
        Rows of ``low, high`` (the range), ``probability`` (the mean in it), ``labels`` (how many), ``true`` (of these).
    """
    true, other = scored.cpu().double().unflatten(-1, (num_bins, -1))
    labels = true + other
    centres = (torch.arange(scored.shape[-1]).double() + 0.5).div(scored.shape[-1]).unflatten(0, (num_bins, -1))
    means = torch.where(labels.sum(-1) > 0, _ratio((labels * centres).sum(-1), labels.sum(-1)), centres.mean(-1))
    lows = [index / num_bins for index in range(num_bins)]
    columns = {
        "low": lows,
        "high": [*lows[1:], 1.0],
        "probability": [round(value, 6) for value in means.tolist()],
        "labels": labels.sum(-1).long().tolist(),
        "true": true.sum(-1).long().tolist(),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def calibration_error(bins: Iterable[Mapping[Any, Any]]) -> float:
    """Return the expected calibration error (Naeini et al. 2015) of all labels of all documents.

    It is the mean distance between the mean probability of a range and the share of its labels that is true, weighted
    by the number of labels.

    Args:
        bins: rows as :func:`reliability` returns them.
    """
    filled = [row for row in bins if row["labels"]]
    distances = sum(abs(row["true"] - row["probability"] * row["labels"]) for row in filled)
    return float(distances / max(1, sum(row["labels"] for row in filled)))
