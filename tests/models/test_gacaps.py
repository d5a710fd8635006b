"""GACaps: its parts against plain loops, and that a prediction does not depend on the batch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import TOY_DOCUMENTS, TOY_EDGES, tiny_source, toy_examples
from torch import Tensor

from ptmt_lightning.losses import MeanBCE
from ptmt_lightning.models.gacaps import GACaps, child_gaps
from ptmt_lightning.models.networks import gacaps
from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.taxonomy import Taxonomy


def make(edges: list[tuple[str, str]] = TOY_EDGES, **changes: Any) -> GACaps:
    """A seeded one over a tiny backbone, evaluating."""
    torch.manual_seed(0)
    backbone, tokenizer, max_length = tiny_source().load(document["text"] for document in TOY_DOCUMENTS)  # type: ignore[misc]
    settings: dict[str, Any] = {
        "taxonomy": Taxonomy(edges), "backbone": backbone, "tokenizer": tokenizer, "max_length": max_length,
        "num_features": 6, "capsule_size": 4, "hierarchy_penalty": 0.1, "frozen_epochs": 1, "seed": 0,
        "label_loss": MeanBCE(gamma=2, weight=4),
        "optimizer": LinearAdamW(learning_rate=1e-3, new_rate_factor=1, weight_decay=0.01, warmup_ratio=0.05),
    }  # fmt: skip
    return GACaps(**settings | changes).eval()


def slow_squash(x: Tensor) -> Tensor:
    return x.norm() / (0.5 + x.norm() ** 2) * x


def slow_route(votes: Tensor) -> Tensor:
    """One document's coupling, vote by vote: ``[I, V]``."""
    num_in, num_out, _ = votes.shape
    logits = torch.zeros(num_in, num_out + 1).double()
    last = None
    for _ in range(20):
        coupling = torch.stack([row.softmax(0)[:-1] for row in logits])
        capsules = [slow_squash(sum(coupling[i, v] * votes[i, v] for i in range(num_in))) for v in range(num_out)]
        close = torch.tensor(
            [[1 - (slow_squash(votes[i, v]) - capsules[v]).norm() for v in range(num_out)] for i in range(num_in)]
        )
        agreement = (coupling * close).sum().clamp_min(1e-8).log()
        if last is not None and abs(agreement - last) < 0.05:
            break
        last = agreement
        logits[:, :-1] += close
    return torch.stack([row.softmax(0)[:-1] for row in logits])


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_routing_equals_the_plain_loop(scale: float) -> None:
    votes = scale * torch.randn(4, 5, 3, 6, generator=torch.Generator().manual_seed(1)).double()
    coupling = gacaps.route(votes)
    for row in range(4):
        torch.testing.assert_close(coupling[row], slow_route(votes[row]), atol=1e-5, rtol=0)
    assert (coupling.sum(-1) < 1).all()  # the orphan column has the rest


def test_routing_of_a_document_does_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    # documents that settle after different numbers of steps
    votes = torch.randn(6, 8, 5, 4) * torch.tensor([0.01, 0.1, 0.5, 1, 3, 10]).view(-1, 1, 1, 1)
    together = gacaps.route(votes)
    for row in range(6):
        torch.testing.assert_close(gacaps.route(votes[row : row + 1])[0], together[row], atol=1e-6, rtol=0)


def test_a_prediction_does_not_depend_on_its_batch() -> None:
    model = make()
    examples = toy_examples(model.tokenizer, model.taxonomy)
    collate = model.collator(training=False)
    with torch.no_grad():
        together = model(collate(examples))
        for row, example in enumerate(examples):
            torch.testing.assert_close(model(collate([example]))[0], together[row], atol=1e-4, rtol=1e-4)


def test_length_of_a_capsule_is_its_probability() -> None:
    vector = torch.randn(5, 4)
    length = gacaps.squash(vector).norm(dim=-1)
    logits = (vector.square().sum(-1) / 0.5).log()
    torch.testing.assert_close(logits.sigmoid(), length)


def test_graph_attention_is_over_parents_children_and_the_node_itself() -> None:
    taxonomy = Taxonomy([("ROOT", "A"), ("ROOT", "B"), ("A", "a1"), ("A", "a2")])
    torch.manual_seed(0)
    layer = gacaps.GraphAttention(3, taxonomy.edge_index(), 4).eval()
    labels = torch.randn(2, 4, 3)
    near = {0: [0, 2, 3], 1: [1], 2: [0, 2], 3: [0, 3]}
    with torch.no_grad():
        found = layer(labels)
        for row in range(2):
            x = labels[row] @ layer.project.weight.T
            for node, others in near.items():
                scores = torch.stack([layer.query(x[node]) + layer.key(x[n]) for n in others]).squeeze(-1)
                weights = torch.nn.functional.leaky_relu(scores).softmax(0)
                expected = sum(w * x[n] for w, n in zip(weights, others, strict=True)).relu()
                torch.testing.assert_close(found[row, node], expected)


def test_the_weakest_representations_do_not_vote() -> None:
    torch.manual_seed(0)
    capsules = gacaps.Capsules(40, 3, 2).eval()
    labels = 1 + torch.rand(1, 40, 3)
    labels[0, [4, 7]] = 1e-3
    with torch.no_grad():
        changed = labels.clone()
        changed[0, [4, 7]] *= -0.5
        torch.testing.assert_close(capsules(labels), capsules(changed))
        changed[0, 5] *= -1
        assert not torch.allclose(capsules(labels), capsules(changed))


def test_gaps_equal_the_plain_loop(toy_taxonomy: Taxonomy) -> None:
    torch.manual_seed(0)
    probabilities = torch.rand(5, 11)
    probabilities[0, 0] = probabilities[0, 3:6].max() + 0.005  # too small to count
    total = 0.0
    for document in probabilities:
        for parent in range(11):
            children = [n for n, parents in enumerate(toy_taxonomy.parents) if parent in parents]
            if children:
                gap = abs(document[parent] - max(document[n] for n in children)).item()
                total += gap if gap > 0.01 else 0
    found = child_gaps(probabilities, toy_taxonomy.edge_index())
    assert found.item() == pytest.approx(total / 5, rel=1e-5)


def test_gaps_have_finite_slopes_and_a_flat_taxonomy_none(toy_taxonomy: Taxonomy) -> None:
    probabilities = torch.rand(3, 11, requires_grad=True)
    child_gaps(probabilities, toy_taxonomy.edge_index()).backward()
    assert probabilities.grad is not None
    assert probabilities.grad.isfinite().all()
    flat = Taxonomy([("ROOT", "A"), ("ROOT", "B")])
    assert child_gaps(torch.rand(3, 2), flat.edge_index()).item() == 0


def test_training_drops_states_of_the_encoder_and_label_representations() -> None:
    model = make()
    batch = model.collator(training=True)(toy_examples(model.tokenizer, model.taxonomy))
    with torch.no_grad():
        assert torch.equal(model(batch), model(batch))
        for dropout in (model.state_dropout, model.label_dropout):
            dropout.train()
            assert not torch.equal(model(batch), model(batch))
            dropout.eval()


def test_loss_is_the_focal_loss_and_the_gaps() -> None:
    model = make()
    batch = model.collator(training=False)(toy_examples(model.tokenizer, model.taxonomy))
    with torch.no_grad():
        terms = model.loss_terms(batch)
        p = model(batch).double().sigmoid()
    right = torch.where(batch.targets, p, 1 - p)
    label = (-4 * (1 - right) ** 2 * right.log()).mean()
    gaps = child_gaps(p, model.taxonomy.edge_index())
    assert terms["label"].item() == pytest.approx(label.item(), rel=1e-4)
    assert terms["loss"].item() == pytest.approx((label + 0.1 * gaps).item(), rel=1e-4)


@pytest.mark.parametrize(("epoch", "moves"), [(0, False), (1, True)])
def test_the_encoder_stands_still_in_the_first_epochs(epoch: int, moves: bool) -> None:
    model = make()
    model._trainer = SimpleNamespace(estimated_stepping_batches=10, precision="32-true", current_epoch=epoch)
    optimizer = model.configure_optimizers()["optimizer"]
    batch = model.collator(training=True)(toy_examples(model.tokenizer, model.taxonomy))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for _ in range(2):  # the warm-up's first step has a rate of 0
        optimizer.zero_grad()
        model.loss_terms(batch)["loss"].backward()
        assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
        model.on_after_backward()  # before what is logged and clipped
        for group in optimizer.param_groups:
            group["lr"] = 1e-3
        optimizer.step()
    changed = {n.split(".")[0] for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert ("backbone" in changed) == moves
    assert {"convolution", "graph", "gate", "capsules"} <= changed
