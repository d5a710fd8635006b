"""Comparison of a benchmark's figures with those that are published, in the paper's Table 2 where it has them."""

from __future__ import annotations

from typing import NamedTuple

from ptmt_lightning.data.benchmarks.base import BenchmarkDataModule, FoldedDataModule
from ptmt_lightning.data.document import SPLITS


class Comparison(NamedTuple):
    """One figure of a benchmark, as counted here and as published."""

    measure: str
    here: str
    paper: str  # "-" where nothing is published
    remark: str  # empty where both agree


def compare(data: BenchmarkDataModule) -> list[Comparison]:
    """Return the figures of prepared data beside those of Table 2.

    They are documents, depth, labels overall and on each level, mean characters, and the documents of each split.
    """
    taxonomy, paper, sizes = data.taxonomy, data.published, data.split_sizes()
    levels = paper.level_sizes or ()
    pairs: dict[str, tuple[int | str, int | str | None]] = {
        "documents": (sum(sizes.values()), paper.documents),
        "depth": (taxonomy.num_levels, len(levels) or None),
        "labels overall": (len(taxonomy), sum(levels) or None),
        "labels a level": ("-".join(map(str, taxonomy.level_sizes)), "-".join(map(str, levels)) or None),
        "mean characters": (round(data.summary["mean_characters"]), paper.mean_characters),
    }
    pairs |= {split: (sizes[split], getattr(paper, split)) for split in SPLITS}
    return [
        Comparison(measure, _shown(here), _shown(there), _remark(data, measure, here, there))
        for measure, (here, there) in pairs.items()
    ]


def _remark(data: BenchmarkDataModule, measure: str, here: int | str, paper: int | str | None) -> str:
    if paper is None or here == paper:
        return ""
    figure, reason = data.known_deviations.get(measure, (paper, ""))
    if here == figure:
        return reason
    same_documents = sum(data.split_sizes().values()) == data.published.documents
    if (
        isinstance(data, FoldedDataModule)
        and same_documents
        and measure in SPLITS
        and abs(int(here) - int(figure)) == 1
    ):
        return f"{reason}; folds differ by a document".lstrip("; ")
    return "differs, no known reason"


def _shown(value: int | str | None) -> str:
    return f"{value:,}" if isinstance(value, int) else value or "-"
