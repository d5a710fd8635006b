"""Weights of labels in a loss."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from conftest import TOY_DOCUMENTS, TOY_EDGES, write_folder
from helpers import make
from torch.nn import functional as F

from ptmt_lightning.losses import WASL, CrossEntropy, LabelLoss, MeanBCE, WeightedBCE
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.training.class_weights import class_weights

SIZES = (2, 3)
WEIGHTS = [0.5, 2.0, 1.0, 3.0, 0.0]


@pytest.mark.parametrize("loss", [WASL(), WeightedBCE(), MeanBCE()])
def test_the_positive_term_of_a_label_is_weighted(loss: LabelLoss) -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    for node in range(5):
        target = F.one_hot(torch.tensor([node]), 5).bool().expand(6, 5)
        plain, without = loss(logits, target, SIZES), loss(logits, target & False, SIZES)
        weighted = type(loss)()
        weighted.weigh(WEIGHTS)
        assert torch.equal(weighted(logits, target & False, SIZES), without)
        level = 0 if node < 2 else 1
        # The loss of the label as a negative is what the other labels leave of the level's.
        negative = type(loss)()
        negative.weigh([0.0] * 5)
        rest = negative(logits, target, SIZES)[:, level]
        torch.testing.assert_close(
            weighted(logits, target, SIZES)[:, level] - rest, WEIGHTS[node] * (plain[:, level] - rest)
        )


def test_cross_entropy_weighs_the_true_label_and_not_the_end_of_a_path() -> None:
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[1, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 1, 0, 0, 1]], dtype=torch.bool)
    plain, weighted = CrossEntropy(), CrossEntropy()
    weighted.weigh(WEIGHTS)
    factors = torch.tensor([[0.5, 3.0], [2.0, 1.0], [2.0, 0.0]])
    torch.testing.assert_close(weighted(logits, targets, SIZES), factors * plain(logits, targets, SIZES))


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    taxonomy = Taxonomy(TOY_EDGES)
    counts = [5, 2, 1, 4, 1, 0, 2, 3, 1, 0, 2]
    weights = class_weights("balanced", taxonomy, counts)
    for level in taxonomy.level_slices:
        labels = [node for node in range(level.start, level.stop) for _ in range(counts[node])]
        known = sorted(set(labels))
        expected = compute_class_weight("balanced", classes=torch.tensor(known).numpy(), y=labels)
        assert [weights[node] for node in known] == pytest.approx(expected.tolist())
    assert weights[5] == weights[9] == 1


def test_weights_from_a_file_reach_the_loss(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", TOY_EDGES, train=TOY_DOCUMENTS, val=TOY_DOCUMENTS)
    file = tmp_path / "weights.csv"
    file.write_text("label,weight\nAA,3\n\nC,0.5\n")
    _, model = make(folder, tmp_path, label_loss=WASL(class_weights=str(file)))
    taxonomy = model.taxonomy
    expected = [3 if name == "AA" else 0.5 if name == "C" else 1 for name in taxonomy.names]
    assert model.label_loss.node_weights.tolist() == expected
    assert not any("node_weights" in name for name in model.state_dict())  # they come from the settings


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,weight\n", "weights.csv:1: expected the columns label,weight, got 'name,weight'"),
        ("label,weight\nAAA,1\nAAB,1\n", "weights.csv:3: label 'AAB' is not in the taxonomy; did you mean 'AB'?"),
        ("label,weight\nAA,much\n", "weights.csv:2: weight='much': expected a number >= 0"),
        ("label,weight\nAA,-1\n", "weights.csv:2: weight=-1.0: expected a number >= 0"),
        ("label,weight\nAA,1,2\n", "weights.csv:2: expected a label and a weight"),
        (None, "expected balanced, or a CSV file with the columns label and weight"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "weights.csv"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        class_weights(str(file), Taxonomy(TOY_EDGES), [1] * 11)
