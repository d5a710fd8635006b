"""Documents without a label: what they cost in training, and what they count in evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TOY_DOCUMENTS, tiny_source
from sklearn.metrics import accuracy_score, f1_score

from ptmt_lightning.data.document import Example
from ptmt_lightning.decisions import DECISIONS
from ptmt_lightning.losses import WASL, CrossEntropy, LabelLoss, MeanBCE, WeightedBCE, count_l1, label_excess
from ptmt_lightning.metrics import HierarchicalMetrics, per_label
from ptmt_lightning.models.base import HTCModel
from ptmt_lightning.models.bert import BERTClassifier
from ptmt_lightning.models.bert_ml import BERTML
from ptmt_lightning.models.frozen import FrozenEncoder
from ptmt_lightning.models.gacaps import GACaps
from ptmt_lightning.models.hbgl import HBGL
from ptmt_lightning.models.hpt import HPT
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.thresholds import tune_thresholds

# ---- training ----


@pytest.mark.parametrize(
    "loss", [WASL(), WeightedBCE(), MeanBCE(), MeanBCE(gamma=2)], ids=["wasl", "bce", "mean_bce", "focal"]
)
def test_its_labels_are_all_negative(loss: LabelLoss, toy_taxonomy: Taxonomy) -> None:
    """A lower score of any label lowers the loss."""
    logits = torch.randn(3, 11, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found = loss(logits, torch.zeros(3, 11, dtype=torch.bool), toy_taxonomy.level_sizes)
    assert found.isfinite().all()
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert (logits.grad >= 0).all()
    assert (logits.grad > 0).any()


def test_cross_entropy_takes_every_level_for_ended(toy_taxonomy: Taxonomy) -> None:
    """As it does the levels below the end of a path: 0 is the score of the end."""
    logits = torch.randn(2, 11, generator=torch.Generator().manual_seed(0))
    loss = CrossEntropy()(logits, torch.zeros(2, 11, dtype=torch.bool), toy_taxonomy.level_sizes)
    for level, nodes in enumerate(toy_taxonomy.level_slices):
        expected = logits[:, nodes].exp().sum(-1).add(1).log()
        torch.testing.assert_close(loss[:, level], expected)
    sure = DECISIONS["level_softmax"].probabilities(torch.full((1, 11), -20.0), toy_taxonomy.level_sizes)
    assert not DECISIONS["level_softmax"].predict(sure, toy_taxonomy.level_sizes, [0.5] * 3).any()


def test_the_expected_number_of_its_labels_is_none(toy_taxonomy: Taxonomy) -> None:
    targets, slots = torch.zeros(2, 11, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)
    sizes = toy_taxonomy.level_sizes
    assert count_l1(label_excess(torch.zeros(2, 11), targets, sizes), slots) == 0
    assert count_l1(label_excess(torch.full((2, 11), 0.5), targets, sizes), slots) == pytest.approx(5.5)


@pytest.mark.parametrize("number", [0, 2], ids=["none labelled", "some labelled"])
@pytest.mark.parametrize("system", [PTMT, BERTClassifier, BERTML, HBGL, GACaps, HPT, FrozenEncoder])
def test_the_loss_of_a_batch_is_finite(system: type[HTCModel], number: int, toy_taxonomy: Taxonomy) -> None:
    torch.manual_seed(0)
    backbone, tokenizer, max_length = tiny_source(num_layers=3).load(document["text"] for document in TOY_DOCUMENTS)  # type: ignore[misc]
    model = system(taxonomy=toy_taxonomy, backbone=backbone, tokenizer=tokenizer, max_length=max_length)
    ids = np.array(tokenizer("m n o", add_special_tokens=False)["input_ids"], dtype=np.int32)
    nodes = [np.array([0, 3] if row < number else [], dtype=np.int32) for row in range(4)]
    batch: Any = model.collator(training=True)([Example(row, 0, ids, found) for row, found in enumerate(nodes)])
    assert batch.targets.any(dim=1).sum() == number
    loss = model.loss_terms(batch)["loss"]
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


# ---- evaluation ----


def test_scores_are_scikit_learns() -> None:
    """An empty prediction for it is exact, and any other one has false positives alone."""
    taxonomy = Taxonomy([("ROOT", "A"), ("A", "AA"), ("ROOT", "B")])  # nodes A, B, AA: no augmentation changes these
    true = torch.tensor([[0, 0, 0], [0, 0, 0], [1, 0, 1], [0, 1, 0], [1, 0, 0]]).bool()
    predicted = torch.tensor([[0, 0, 0], [1, 0, 1], [1, 0, 1], [0, 0, 0], [1, 0, 0]]).bool()
    metrics = HierarchicalMetrics(taxonomy)
    metrics.update(predicted, true, predicted.float())
    values = metrics.compute()
    assert values.values["exact_match"] == accuracy_score(true, predicted) == 3 / 5
    for average in ("micro", "macro"):
        expected = f1_score(true, predicted, average=average, zero_division=0)
        assert values.values[f"h_f1_{average}"] == pytest.approx(expected)
    assert [row["precision"] for row in per_label(taxonomy, values.flat_counts)] == pytest.approx([2 / 3, 0, 1 / 2])


def test_without_predictions_it_changes_exact_match_alone(toy_taxonomy: Taxonomy) -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, true = (torch.rand(2, 6, 11, generator=generator) < 0.3).unbind()
    nothing = torch.zeros(4, 11, dtype=torch.bool)
    scored = []
    for empty in (nothing[:0], nothing):
        metrics = HierarchicalMetrics(toy_taxonomy)
        found = torch.cat([predicted, empty])
        metrics.update(found, torch.cat([true, empty]), found.float())
        scored.append(metrics.compute().values)
    few, many = scored
    assert many.pop("exact_match") == pytest.approx((few.pop("exact_match") * 6 + 4) / 10)
    assert {k: v for k, v in many.items() if k != "h_auprc"} == {k: v for k, v in few.items() if k != "h_auprc"}


def test_thresholds_are_tuned_against_its_false_positives(toy_taxonomy: Taxonomy) -> None:
    true = F.one_hot(torch.tensor([0, 0, 1, 2]), 11).bool()
    probabilities = torch.where(true, 0.8, 0.0)
    unlabelled = torch.zeros(40, 11).index_fill_(1, torch.tensor([0, 1, 2]), 0.7)
    thresholds = tune_thresholds(
        torch.cat([probabilities, unlabelled]), torch.cat([true, torch.zeros(40, 11, dtype=torch.bool)]), toy_taxonomy,
        tuning="global", prune=True,
    )  # fmt: skip
    assert 0.7 <= thresholds[0] < 0.8
