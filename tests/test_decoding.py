"""Which labels are chosen by their probabilities: the best path of a document, or the best labels of each level."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_taxonomies import DAG_EDGES, quick, trees_or_dags

from ptmt_lightning.decisions import DECISIONS, DecisionRule, check_decoding
from ptmt_lightning.taxonomy import Taxonomy


def ways_down(taxonomy: Taxonomy, node: int) -> Iterator[tuple[int, ...]]:
    """All paths from a top node to a node."""
    if node in taxonomy.tops:
        yield (node,)
    for parent in taxonomy.parents[node]:
        for way in ways_down(taxonomy, parent):
            yield (*way, node)


def score(taxonomy: Taxonomy, path: tuple[int, ...], p: list[float]) -> float:
    children = [node for node, parents in enumerate(taxonomy.parents) if path[-1] in parents]
    return math.prod([*(p[node] for node in path), *(1 - p[child] for child in children)])


@given(trees_or_dags, st.integers(0, 2**20))
@quick
def test_the_best_path_is_that_of_highest_probability(edges: list[tuple[str, str]], seed: int) -> None:
    taxonomy = Taxonomy(edges)
    p_BV = torch.rand(3, len(taxonomy), generator=torch.Generator().manual_seed(seed))
    for to_leaf in (False, True):
        inner = set(itertools.chain(*taxonomy.parents))
        ends = [node for node in range(len(taxonomy)) if not (to_leaf and node in inner)]
        paths = [way for node in ends for way in ways_down(taxonomy, node)]
        for p, chosen in zip(p_BV.tolist(), taxonomy.best_path(p_BV, to_leaf=to_leaf), strict=True):
            nodes = tuple(chosen.nonzero().flatten().tolist())
            assert nodes in paths
            assert score(taxonomy, nodes, p) == pytest.approx(max(score(taxonomy, path, p) for path in paths))


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("to_leaf", [False, True])
def test_there_is_one_path_whatever_the_probabilities(value: float, to_leaf: bool) -> None:
    taxonomy = Taxonomy(DAG_EDGES)
    chosen = taxonomy.best_path(torch.full((1, len(taxonomy)), value), to_leaf=to_leaf)[0]
    [path] = taxonomy.label_paths(chosen.nonzero().flatten().tolist())
    assert path[0] in taxonomy.tops


def rule(**settings: object) -> DecisionRule:
    taxonomy = Taxonomy([("ROOT", "A"), ("ROOT", "B"), ("A", "C"), ("A", "D"), ("B", "E")])
    fields = {"decision": DECISIONS["sigmoid"], "thresholds": (0.5, 0.5)} | settings
    return DecisionRule(taxonomy=taxonomy, **fields)  # type: ignore[arg-type]


P = torch.tensor([[0.4, 0.45, 0.3, 0.2, 0.1]])  # A, B, C, D, E


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ""),
        ({"decoding": "best_path"}, "B"),
        ({"decoding": "best_path", "to_leaf": True}, "AC"),
        ({"decoding": "top_k", "top_k": 1}, "B"),  # C is pruned: A, above it, is not the best of its level
        ({"decoding": "top_k", "top_k": 1, "prune": False}, "BC"),
        ({"decoding": "top_k", "top_k": 2}, "ABCD"),
        ({"thresholds": (0.0, 0.0), "top_k": 1}, "B"),
        ({"decision": DECISIONS["level_softmax"]}, "B"),
        ({"decision": DECISIONS["level_softmax"], "decoding": "best_path", "to_leaf": True}, "AC"),
    ],
)
def test_decodings(settings: dict[str, object], expected: str) -> None:
    decided = rule(**settings)
    assert "".join(decided.taxonomy.names[node] for node in decided.predict(P)[0].nonzero().flatten()) == expected
    if decided.decoding != "threshold":
        assert DecisionRule.from_json(decided.to_json(), decided.taxonomy) == decided


def test_a_rule_of_an_earlier_version_decides_by_thresholds() -> None:
    old = {"decision": "sigmoid", "thresholds": [0.5, 0.5], "prune": True, "coherent": False}
    assert DecisionRule.from_json(old, rule().taxonomy).decoding == "threshold"


@pytest.mark.parametrize(
    ("decoding", "top_k", "message"),
    [
        ("beam", None, "model.decoding='beam': expected one of threshold, best_path, top_k"),
        ("top_k", None, "model.decoding=top_k: expected model.top_k, the number of labels a level; set model.top_k=1"),
        ("top_k", 0, "model.top_k=0"),
        ("best_path", 2, "model.top_k=2 goes with model.decoding=top_k, not best_path; set that, or leave it out"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(decoding: str, top_k: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        check_decoding(decoding, top_k)
