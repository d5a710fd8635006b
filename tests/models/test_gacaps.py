"""GACaps: its layers against plain loops, and that a prediction does not depend on the batch."""

from __future__ import annotations

import math
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


# ---- the published formulas as plain loops ----


def slow_squash(x: Any) -> Any:
    return x.norm() / (0.5 + x.norm() ** 2) * x


def slow_route(votes: Tensor) -> Tensor:
    """One document's probabilities, vote by vote: ``[V]`` of ``[I, V, C]``."""
    num_in, num_out, _ = votes.shape
    logits = torch.zeros(num_in, num_out + 1).double()
    last = 0.0
    while True:
        coupling = torch.stack([row.softmax(0)[:-1] for row in logits])
        capsules = [slow_squash(sum(coupling[i, v] * votes[i, v] for i in range(num_in))) for v in range(num_out)]
        agreement = 0.0
        for i in range(num_in):
            for v in range(num_out):
                close = 1 - (slow_squash(votes[i, v]) - capsules[v]).norm()
                logits[i, v] += close
                agreement += float(logits[i, v] * close)
        if abs(math.log(agreement) - last) < 0.05:
            return torch.stack([capsule.norm() for capsule in capsules])
        last = math.log(agreement)


def slow_scores(model: GACaps, states: Tensor, scale: float) -> Tensor:
    """One document's probabilities from the states of its text ``[L, H]``, number by number."""
    weights = {name: value.detach().double() for name, value in model.state_dict().items()}
    states = states.double()
    num_nodes, size, capsule = len(model.taxonomy), model.num_features, model.capsule_size
    kernel, shift = weights["convolution.weight"], weights["convolution.bias"]
    blank = torch.zeros_like(states[:1])
    padded = torch.cat([blank, states, blank])
    labels = torch.zeros(num_nodes, size).double()
    for channel in range(num_nodes * size):
        found = [(kernel[channel] * padded[t : t + 3].T).sum() + shift[channel] for t in range(len(states))]
        labels[divmod(channel, size)] = max(0.0, *(float(value) for value in found))
    projected = [weights["graph.project.weight"] @ x + weights["graph.project.bias"] for x in labels]
    related = []
    for node in range(num_nodes):
        parents = model.taxonomy.parents
        near = [n for n in range(num_nodes) if n == node or n in parents[node] or node in parents[n]]
        scores = [
            weights["graph.query.weight"][0] @ projected[node] + weights["graph.key.weight"][0] @ projected[n]
            for n in near
        ]
        exponents = [math.exp(x if x > 0 else 0.01 * x) for x in map(float, scores)]
        mixed = sum(e / sum(exponents) * projected[n] for e, n in zip(exponents, near, strict=True))
        related.append(mixed.clamp_min(0))
    hidden = (weights["gate.inner.weight"] @ torch.cat(related) + weights["gate.inner.bias"]).clamp_min(0)
    gates = (weights["gate.outer.weight"] @ hidden + weights["gate.outer.bias"]).tanh()
    gated = [(1 + float(gate)) * x for gate, x in zip(gates, related, strict=True)]
    strongest = sorted(range(num_nodes), key=lambda n: -gated[n].norm())[: int(num_nodes * (1 - 0.05))]
    votes = torch.zeros(num_nodes, num_nodes, capsule).double()
    for i in strongest:
        for v in range(num_nodes):
            columns = slice(v * capsule, (v + 1) * capsule)
            vote = gated[i] @ weights["capsules.weight"][:, columns] + weights["capsules.bias"][i, columns]
            votes[i, v] = scale * vote
    return slow_route(votes).clamp(1e-6, 1 - 1e-6)


@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_scores_equal_the_plain_loops(scale: float) -> None:
    model = make().double()
    with torch.no_grad():
        model.capsules.bias.normal_(std=0.2)
        model.capsules.vote_scale.fill_(scale)
        batch = model.collator(training=False)(toy_examples(model.tokenizer, model.taxonomy))
        places = torch.arange(batch.input_ids.shape[1]).expand_as(batch.input_ids)
        states = model.backbone.states(batch.input_ids, batch.attention_mask, places)
        found = model(batch).sigmoid()
        for row, mask in enumerate(batch.attention_mask.bool()):
            expected = slow_scores(model, states[row, mask], scale)
            torch.testing.assert_close(found[row].double(), expected, atol=1e-5, rtol=1e-4)
    assert found.std() > 0.01


@pytest.mark.parametrize("scale", [0.3, 1.0, 5.0])
def test_routing_equals_the_plain_loop(scale: float) -> None:
    votes = scale * torch.randn(4, 5, 3, 6, generator=torch.Generator().manual_seed(1)).double()
    found = gacaps.squash(gacaps.route(votes)).norm(dim=-1)
    for row in range(4):
        torch.testing.assert_close(found[row], slow_route(votes[row]), atol=1e-5, rtol=0)


def test_slopes_flow_through_the_routing() -> None:
    votes = torch.randn(2, 4, 3, 2, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    assert torch.autograd.gradcheck(gacaps.route, [votes])


def test_size_at_146_labels_is_the_published_one() -> None:
    capsules = gacaps.Capsules(146, 100, 32)
    assert sum(parameter.numel() for parameter in capsules.parameters()) == 100 * 146 * 32 + 146 * 146 * 32
    assert [gacaps.Capsules(n, 2, 2).num_voters for n in (1, 34, 146)] == [1, 32, 138]


def test_routing_of_a_document_does_not_depend_on_the_others() -> None:
    torch.manual_seed(0)
    # Documents that settle after different numbers of steps
    votes = torch.randn(6, 8, 5, 4) * torch.tensor([0.01, 0.1, 0.5, 1, 3, 10]).view(-1, 1, 1, 1)
    together = gacaps.route(votes)
    for row in range(6):
        torch.testing.assert_close(gacaps.route(votes[row : row + 1])[0], together[row], atol=1e-6, rtol=1e-4)


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


def test_capsule_dropout_keeps_the_square_and_drops_whole_representations() -> None:
    torch.manual_seed(0)
    capsules = gacaps.Capsules(20, 3, 2).train()
    labels = 1 + torch.rand(400, 20, 3)
    with torch.no_grad():
        votes = capsules.votes(labels)
        capsules.eval()
        whole = capsules.votes(labels)
    dropped = (votes == 0).flatten(2).all(-1) & (whole != 0).flatten(2).any(-1)
    assert dropped.float().mean().item() == pytest.approx(0.15 * 0.95, abs=0.01)
    kept = votes != 0
    torch.testing.assert_close(votes[kept], whole[kept] / 0.85**0.5)
    assert (votes.square().sum() / whole.square().sum()).item() == pytest.approx(1, abs=0.02)


# ---- the scale of votes, and earlier layers ----


def test_scale_is_the_ratio_of_norms_in_training_and_evaluation_and_leaves_training_alone() -> None:
    model = make()
    batch = model.collator(training=False)(toy_examples(model.tokenizer, model.taxonomy))
    with torch.no_grad():
        model.capsules.vote_scale.fill_(3.0)  # of an earlier validation
        norms = {}
        for training in (False, True):
            model.train(training)
            torch.manual_seed(0)  # what measuring draws
            norms[training] = model.capsules.votes(model.label_representations(batch)).norm().item()
        trained = model(batch)
        model.eval()
        model.measure_vote_scale(batch)
        assert not model.training
        assert model.capsules.vote_scale.item() == pytest.approx(norms[True] / norms[False], rel=1e-5)
        assert model.capsules.vote_scale > 1.05
        before = model(batch)
        model.capsules.vote_scale.fill_(1.0)
        assert (model(batch) < before).float().mean() > 0.9
        model.train()
        torch.manual_seed(0)
        model.capsules.votes(model.label_representations(batch))
        torch.testing.assert_close(model(batch), trained)


def test_a_checkpoint_of_earlier_layers_is_refused() -> None:
    model = make()
    checkpoint: dict[str, Any] = {}
    model.on_save_checkpoint(checkpoint)
    model.on_load_checkpoint(checkpoint)
    del checkpoint["layout"]  # as the first layers wrote it
    with pytest.raises(ValueError, match=r"^the checkpoint is of an earlier version of model=gacaps, whose layers"):
        model.on_load_checkpoint(checkpoint)


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
