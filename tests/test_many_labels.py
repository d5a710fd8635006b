"""The plain count that experiments/scale compares the metrics with counts the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import ROOT_DIR

from ptmt_lightning.metrics import HierarchicalMetrics
from ptmt_lightning.taxonomy import Taxonomy


def test_the_plain_count_is_that_of_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT_DIR / "experiments/scale"))
    import many_labels

    taxonomy = Taxonomy.from_paths(many_labels.taxonomy_of(300))
    assert len(taxonomy) == 300
    assert taxonomy.num_levels == 5
    draw = np.random.default_rng(0)
    probabilities, true = draw.random((20, 300), dtype=np.float32), draw.random((20, 300)) < 0.01
    predicted, metrics = probabilities > 0.9, HierarchicalMetrics(taxonomy)
    metrics.update(*map(torch.from_numpy, (predicted, true, probabilities)))
    parents = np.array([above[0] if above else -1 for above in taxonomy.parents])
    counts = many_labels.plain_counts(predicted, true, probabilities, parents, taxonomy.level_slices)
    assert np.array_equal(np.stack(counts[:3]), metrics.flat_counts)
    assert np.array_equal(np.stack(counts[3:6]), metrics.h_counts)
    assert np.array_equal(np.stack(counts[6:]), metrics.scored)
