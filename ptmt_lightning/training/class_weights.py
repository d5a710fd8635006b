"""Weights of labels in a loss: by how often each occurs, or from a file of the user's."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils.checks import check_range, shortened
from ptmt_lightning.utils.files import check_file
from ptmt_lightning.utils.lines import open_lines

_COLUMNS = ["label", "weight"]


def class_weights(choice: str, taxonomy: Taxonomy, counts: Sequence[int]) -> list[float]:
    """Return the weight of each node.

    Args:
        choice: ``balanced`` for the mean number of documents of a node on the level over that of the node, 1 where
            there is none; or the path of a CSV file with the columns ``label`` and ``weight``, where nodes that are not
            listed weigh 1.
        taxonomy: the taxonomy of the nodes.
        counts: number of training documents of each node.

    Raises:
        ValueError: no such file, or a row of it is not a known label with a weight; the message names file and row.
    """
    if choice == "balanced":
        return _balanced(taxonomy, np.asarray(counts))
    path = Path(choice).expanduser()
    check_file(path, "loss.class_weights: expected balanced, or a CSV file with the columns label and weight")
    weights = [1.0] * len(taxonomy)
    with open_lines(path) as lines:
        rows = csv.reader(lines)
        if (header := next(rows, [])) != _COLUMNS:
            raise ValueError(f"{path}:1: expected the columns label,weight, got {shortened(','.join(header))!r}")
        for row in filter(None, rows):
            where = f"{path}:{rows.line_num}"
            if len(row) != len(_COLUMNS):
                raise ValueError(f"{where}: expected a label and a weight, got {shortened(row)}; quote commas")
            name, weight = row
            if name not in taxonomy.index:
                near = difflib.get_close_matches(name, taxonomy.names, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"{where}: label {shortened(name)!r} is not in the taxonomy{hint}")
            weights[taxonomy.index[name]] = _number(where, weight)
    return weights


def _balanced(taxonomy: Taxonomy, counts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[float]:
    weights = np.ones(len(taxonomy))
    for level in taxonomy.level_slices:
        known = counts[level] > 0
        weights[level][known] = counts[level][known].mean() / counts[level][known]
    return weights.tolist()


def _number(where: str, text: str) -> float:
    try:
        number: object = float(text)
    except ValueError:
        number = text
    check_range(f"{where}: weight", number, 0)
    assert isinstance(number, float)
    return number
