"""Softmax over siblings: probabilities and loss against plain walks through the taxonomy, in a tree and in a DAG."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from conftest import TOY_EDGES
from every_system import MORE, TEXTS, check_exported, saved
from torch import Tensor

from ptmt_lightning.conditional_loss import ConditionalCrossEntropy
from ptmt_lightning.decisions import DECISIONS
from ptmt_lightning.inference import Classifier
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.edges import ROOT

TREE = Taxonomy([(ROOT, "A"), (ROOT, "B"), ("A", "a"), ("A", "b"), ("A", "c"), ("B", "d"), ("b", "x"), ("b", "y")])
DAG = Taxonomy([(ROOT, "A"), (ROOT, "B"), ("A", "a"), ("B", "a"), ("B", "b"), ("a", "x"), ("B", "x"), (ROOT, "C")])


def children(taxonomy: Taxonomy, parent: int | None) -> list[int]:
    if parent is None:
        return sorted(taxonomy.tops)
    return [node for node in range(len(taxonomy)) if parent in taxonomy.parents[node]]


def conditional(scores: Tensor, taxonomy: Taxonomy, node: int | None, parent: int | None) -> float:
    """The probability of a child of a parent, or with None of the end."""
    weights: dict[int | None, float] = {None: 1.0}
    weights |= {child: math.exp(scores[child]) for child in children(taxonomy, parent)}
    return weights[node] / sum(weights.values())


def probability(scores: Tensor, taxonomy: Taxonomy, node: int) -> float:
    parents: list[int | None] = [*taxonomy.parents[node], *([None] if node in taxonomy.tops else [])]
    return sum(
        conditional(scores, taxonomy, node, parent) * (1.0 if parent is None else probability(scores, taxonomy, parent))
        for parent in parents
    )


@pytest.mark.parametrize("taxonomy", [TREE, DAG], ids=["tree", "dag"])
def test_probabilities_are_products_down_the_paths(taxonomy: Taxonomy) -> None:
    scores = 2 * torch.randn(5, len(taxonomy), generator=torch.Generator().manual_seed(0))
    decision = DECISIONS["conditional_softmax"].for_taxonomy(taxonomy)
    found = decision.probabilities(scores, taxonomy.level_sizes)
    for row in range(5):
        expected = [probability(scores[row], taxonomy, node) for node in range(len(taxonomy))]
        assert found[row].tolist() == pytest.approx(expected, rel=1e-5)
    for level in taxonomy.level_slices:
        assert (found[:, level].sum(-1) < 1 + 1e-6).all()
    predicted = decision.predict(found, taxonomy.level_sizes, [0.5] * 3)
    assert all(predicted[:, level].sum(-1).max() <= 1 for level in taxonomy.level_slices)


@pytest.mark.parametrize("tau", [0.0, 1.0, 0.5])
@pytest.mark.parametrize(
    ("taxonomy", "names"),
    [(TREE, ["A", "b", "x"]), (TREE, ["A", "b"]), (TREE, ["B"]), (TREE, []), (DAG, ["A", "B", "a", "x"]), (DAG, ["C"])],
)
def test_loss_is_that_of_each_step_of_the_path_and_of_its_end(taxonomy: Taxonomy, names: list[str], tau: float) -> None:
    scores = torch.randn(1, len(taxonomy), generator=torch.Generator().manual_seed(1))
    counts = [(7 * node + 3) % 11 for node in range(len(taxonomy))]
    loss = ConditionalCrossEntropy(tau=tau)
    loss.connect(taxonomy)
    loss.count(counts, 40)
    true = {taxonomy.index[name] for name in names}
    targets = torch.tensor([[node in true for node in range(len(taxonomy))]])

    def log_p(node: int | None, parent: int | None) -> float:
        below = children(taxonomy, parent)
        ended = max(0, (40 if parent is None else counts[parent]) - sum(counts[child] for child in below))
        total = sum(counts[child] + 1 for child in below) + ended + 1
        weights: dict[int | None, float] = {None: ((ended + 1) / total) ** tau}
        weights |= {child: math.exp(scores[0, child]) * ((counts[child] + 1) / total) ** tau for child in below}
        return math.log(weights[node] / sum(weights.values()))

    expected = [0.0] * taxonomy.num_levels
    for node in true:
        parents = [p for p in taxonomy.parents[node] if p in true] + ([None] if node in taxonomy.tops else [])
        expected[taxonomy.levels[node] - 1] -= sum(log_p(node, parent) for parent in parents) / len(parents)
    for parent in (None, *true):
        below = children(taxonomy, parent)
        if below and not true.intersection(below):
            expected[0 if parent is None else taxonomy.levels[parent]] -= log_p(None, parent)
    assert loss(scores, targets, taxonomy.level_sizes)[0].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_the_log_prior_raises_rare_siblings_in_prediction() -> None:
    """Trained on constant features, adjusted scores are equal: what is frequent is in the prior, not in the score."""
    taxonomy = Taxonomy([(ROOT, "A"), (ROOT, "B")])
    targets = torch.tensor([[True, False]] * 9 + [[False, True]])
    found = {}
    for tau in (0.0, 1.0):
        loss = ConditionalCrossEntropy(tau=tau)
        loss.connect(taxonomy)
        loss.count([9, 1], 10)
        scores = torch.zeros(2, requires_grad=True)
        optimizer = torch.optim.Adam([scores], lr=0.05)
        for _ in range(300):
            optimizer.zero_grad()
            loss(scores.expand(10, -1), targets, taxonomy.level_sizes).sum(-1).mean().backward()
            optimizer.step()
        found[tau] = (scores[0] - scores[1]).item()
    assert found[0.0] == pytest.approx(math.log(9), abs=0.1)
    assert found[1.0] == pytest.approx(math.log(9) - math.log(10 / 2), abs=0.1)  # counts are one higher


def test_a_saved_model_has_the_decision_and_its_probabilities(tmp_path: Path) -> None:
    model = saved(tmp_path, "bert", label_loss=ConditionalCrossEntropy())
    classifier = Classifier.from_pretrained(tmp_path / "model", device="cpu")
    assert classifier.rule.decision.name == "conditional_softmax"
    probabilities = classifier.probabilities(TEXTS)
    taxonomy = Taxonomy(TOY_EDGES)
    for row in range(len(TEXTS)):
        for node in range(len(taxonomy)):
            for parent in taxonomy.parents[node]:
                if len(taxonomy.parents[node]) == 1:
                    assert probabilities[row, node] <= probabilities[row, parent] + 1e-6
    assert model.rule.decision.name == "conditional_softmax"
    assert len(classifier.predict(MORE)) == len(MORE)


@pytest.mark.slow
def test_an_exported_model_scores_the_same(tmp_path: Path) -> None:
    """Slow as all exports are."""
    saved(tmp_path, "bert", label_loss=ConditionalCrossEntropy())
    check_exported(tmp_path, "onnx")


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^loss\.tau=-1: expected a number >= 0; set loss\.tau to one"):
        ConditionalCrossEntropy(tau=-1)
