"""A prediction as a run keeps it: by nodes, with the truth beside it."""

from __future__ import annotations

from typing import NamedTuple


class DocumentPrediction(NamedTuple):
    """What was predicted for one document."""

    row: int  # of the split
    nodes: list[int]
    probabilities: list[float]  # of these nodes
    true_nodes: list[int]
    true_probabilities: list[float]  # of those
