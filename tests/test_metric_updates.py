"""Metrics over several updates, after a reset, and over two processes."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from metric_references import toy_labels
from torch import Tensor, distributed, multiprocessing

from ptmt_lightning.metrics import HierarchicalMetrics
from ptmt_lightning.taxonomy import Taxonomy


def test_several_updates_equal_one(toy_taxonomy: Taxonomy) -> None:
    predicted, targets, probabilities = toy_labels(17, 11)
    once, often = HierarchicalMetrics(toy_taxonomy), HierarchicalMetrics(toy_taxonomy)
    once.update(predicted, targets, probabilities)
    for rows in torch.arange(17).split(5):
        often.update(predicted[rows], targets[rows], probabilities[rows])
    assert often.compute().values == once.compute().values
    assert torch.equal(often.compute().flat_counts, once.compute().flat_counts)


def test_reset_forgets_everything(toy_taxonomy: Taxonomy) -> None:
    predicted, targets, probabilities = toy_labels(6, 11)
    used, fresh = HierarchicalMetrics(toy_taxonomy), HierarchicalMetrics(toy_taxonomy)
    used.update(~predicted, targets, 1 - probabilities)
    used.reset()
    used.update(predicted, targets, probabilities)
    fresh.update(predicted, targets, probabilities)
    assert used.compute().values == fresh.compute().values


def test_computed_counts_stay_when_the_metric_is_reset(toy_taxonomy: Taxonomy) -> None:
    predicted, targets, probabilities = toy_labels(6, 11)
    metrics = HierarchicalMetrics(toy_taxonomy)
    metrics.update(predicted, targets, probabilities)
    counts = metrics.compute().flat_counts
    before = counts.clone()
    metrics.update(predicted, targets, probabilities)
    metrics.reset()
    assert torch.equal(counts, before)


def test_update_leaves_its_arguments_alone(toy_taxonomy: Taxonomy) -> None:
    predicted, targets, probabilities = toy_labels(6, 11)
    before = predicted.clone(), targets.clone(), probabilities.clone()
    HierarchicalMetrics(toy_taxonomy).update(predicted, targets, probabilities)
    assert torch.equal(predicted, before[0])
    assert torch.equal(targets, before[1])
    assert torch.equal(probabilities, before[2])


def compute_on_rank(
    rank: int, folder: Path, taxonomy: Taxonomy, predicted: Tensor, targets: Tensor, probabilities: Tensor
) -> None:
    """One of two processes: counts its share of the documents, and writes what both together compute."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=2)
    metrics = HierarchicalMetrics(taxonomy)
    for row in range(rank, len(predicted), 2):
        metrics.update(predicted[row : row + 1], targets[row : row + 1], probabilities[row : row + 1])
    values, flat_counts, _ = metrics.compute()
    result = {"values": values, "flat_counts": flat_counts.tolist(), "own_documents": metrics.num_documents.item()}
    (folder / f"{rank}.json").write_text(json.dumps(result))
    distributed.destroy_process_group()


def test_two_processes_compute_exactly_what_one_does(toy_taxonomy: Taxonomy, tmp_path: Path) -> None:
    predicted, targets, probabilities = toy_labels(9, 11)
    one = HierarchicalMetrics(toy_taxonomy)
    one.update(predicted, targets, probabilities)
    values, flat_counts, _ = one.compute()
    arguments = (tmp_path, toy_taxonomy, predicted, targets, probabilities)
    multiprocessing.start_processes(compute_on_rank, args=arguments, nprocs=2, start_method="fork")
    for rank, own_documents in enumerate((5, 4)):
        result = json.loads((tmp_path / f"{rank}.json").read_text())
        assert result == {"values": values, "flat_counts": flat_counts.tolist(), "own_documents": own_documents}
