"""Hierarchical and flat metrics from counts, so that they add up over batches and ranks.

Shape legend: ``B`` documents, ``V`` nodes.
Counts are int64 ``[3, V]``: true positives, false positives, false negatives.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from ptmt_lightning.taxonomy import Taxonomy

Classes = Literal["present", "all"]

_NUM_BINS = 1000  # of probabilities, for the threshold-free metric


class Scores(NamedTuple):
    """Precision, recall and F1; 0 where the denominator is 0."""

    precision: Tensor
    recall: Tensor
    f1: Tensor


def count(predicted: Tensor, targets: Tensor) -> Tensor:
    """Counts ``[3, V]`` of bool predictions and targets ``[B, V]``."""
    return torch.stack([(predicted & targets).sum(0), (predicted & ~targets).sum(0), (~predicted & targets).sum(0)])


def scores(counts: Tensor) -> Scores:
    """Scores of counts ``[3, ...]``, each of shape ``[...]``, float64."""
    tp, fp, fn = counts.double()
    return Scores(_ratio(tp, tp + fp), _ratio(tp, tp + fn), _ratio(2 * tp, 2 * tp + fp + fn))


def micro(counts: Tensor) -> Scores:
    """Scores over all classes together, of counts ``[3, ..., V]``: Eq. 4-5 on augmented labels."""
    return scores(counts.sum(-1))


def macro(counts: Tensor, classes: Classes = "present") -> Scores:
    """Mean of the per-class scores; the F1 is the mean of per-class F1.

    Args:
        counts: ``[3, ..., V]``.
        classes: average over the classes that occur in the truth or the predictions, or over all.
    """
    per_class = scores(counts)
    counted = counts.sum(0) > 0 if classes == "present" else torch.ones_like(counts[0], dtype=torch.bool)
    size = counted.sum(-1).double()
    return Scores(*(_ratio(score.where(counted, 0.0).sum(-1), size) for score in per_class))


def harmonic(precision: Tensor, recall: Tensor) -> Tensor:
    """Harmonic mean, 0 where both are 0 (Eq. 8)."""
    return _ratio(2 * precision * recall, precision + recall)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.where(denominator > 0, numerator / denominator.clamp_min(torch.finfo(torch.double).tiny), 0.0)


def average_precision(scored: Tensor) -> Tensor:
    """Area under the precision-recall curve (average precision) of binned scores.

    Args:
        scored: counts ``[2, bins]`` of true and of other nodes by ascending score.
    """
    true, other = scored.flip(-1).cumsum(-1).double()  # at or above each score, from the highest down
    recall = _ratio(true, true[-1:])
    gained = recall.diff(prepend=recall.new_zeros(1))
    return (gained * _ratio(true, true + other)).sum()


class MetricValues(NamedTuple):
    """What :class:`HierarchicalMetrics` computes."""

    values: dict[str, float]
    flat_counts: Tensor  # [3, V], for :func:`per_label`
    scored: Tensor  # [2, bins], for :func:`reliability`


class HierarchicalMetrics(Metric):
    """All reported metrics of one split, from two sets of counts.

    ``h_*`` are on predictions and truth augmented with all ancestors (Kiritchenko et al. 2006): ``h_f1_macro`` is
    the mean of per-class F1 (the figure that the field reports), ``h_f1_macro_harmonic`` the harmonic mean of
    macro precision and macro recall (Eq. 6-8), never lower. ``h_auprc`` needs no threshold: the area under the curve
    of micro h-precision over h-recall as the threshold of pruned predictions falls. The others are flat: on labels
    as they are, overall and at each level (``f1_macro_level_1``, ...).

    Args:
        classes: which classes macro averages run over, see :func:`macro`.

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

    def __init__(self, taxonomy: Taxonomy, *, classes: Classes = "present", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if classes not in ("present", "all"):
            raise ValueError(f"model.metric_classes={classes!r}: expected 'present' or 'all'")
        self.taxonomy, self.classes = taxonomy, classes
        for name, shape in {"flat_counts": (3, len(taxonomy)), "h_counts": (3, len(taxonomy))}.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("scored", torch.zeros(2, _NUM_BINS, dtype=torch.long), dist_reduce_fx="sum")
        for name in ("num_exact", "num_documents"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predicted: Tensor, targets: Tensor, probabilities: Tensor) -> None:
        """Count ``[B, V]`` bool predictions and targets, both not yet augmented, and the probabilities before."""
        true = self.taxonomy.augment(targets)
        self.flat_counts += count(predicted, targets)
        self.h_counts += count(self.taxonomy.augment(predicted), true)
        ranked = self.taxonomy.raised(self.taxonomy.coherent(probabilities))
        bins = (ranked * _NUM_BINS).long().clamp_(0, _NUM_BINS - 1)
        self.scored += torch.stack(
            [torch.bincount(scores, minlength=_NUM_BINS) for scores in (bins[true], bins[~true])]
        )
        self.num_exact += (predicted == targets).all(dim=-1).sum()
        self.num_documents += predicted.shape[0]

    def compute(self) -> MetricValues:
        """The metrics over all documents of all ranks; float64 arithmetic."""
        h_macro, h_micro = macro(self.h_counts, self.classes), micro(self.h_counts)
        result = {
            "h_f1_macro": h_macro.f1,
            "h_f1_macro_harmonic": harmonic(h_macro.precision, h_macro.recall),
            "h_f1_micro": h_micro.f1,
            "h_precision_micro": h_micro.precision,
            "h_recall_micro": h_micro.recall,
            "f1_macro": macro(self.flat_counts, self.classes).f1,
            "f1_micro": micro(self.flat_counts).f1,
            "h_auprc": average_precision(self.scored),
            "exact_match": _ratio(self.num_exact.double(), self.num_documents.double()),
        }
        for level, nodes in enumerate(self.taxonomy.level_slices, start=1):
            result[f"f1_macro_level_{level}"] = macro(self.flat_counts[:, nodes], self.classes).f1
            result[f"f1_micro_level_{level}"] = micro(self.flat_counts[:, nodes]).f1
        values = {name: value.item() for name, value in result.items()}
        return MetricValues(values, self.flat_counts.clone(), self.scored.clone())


def per_label(taxonomy: Taxonomy, flat_counts: Tensor) -> list[dict[str, Any]]:
    """One row a node: ``label, level, support, predicted, precision, recall, f1``."""
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
    """One row a range of the probabilities that ``h_auprc`` ranks: ``low, high, probability`` (mean), ``labels, true``.

    Args:
        scored: counts ``[2, bins]`` of true and of other nodes by ascending score.
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
