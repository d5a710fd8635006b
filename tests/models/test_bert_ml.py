"""BERT + ML: its penalties against direct loops, and what its head sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TOY_DOCUMENTS, TOY_EDGES, tiny_source, toy_examples
from torch import distributed as dist
from torch import multiprocessing

from ptmt_lightning.losses import MeanBCE
from ptmt_lightning.models.bert_ml import BERTML, match_penalties
from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.taxonomy import Taxonomy


def make(**changes: Any) -> BERTML:
    """A seeded one over a tiny backbone of 2 layers, evaluating."""
    torch.manual_seed(0)
    backbone, tokenizer, max_length = tiny_source().load(document["text"] for document in TOY_DOCUMENTS)  # type: ignore[misc]
    settings: dict[str, Any] = {
        "taxonomy": Taxonomy(TOY_EDGES), "backbone": backbone, "tokenizer": tokenizer, "max_length": max_length,
        "dropout": 0.1, "num_layers": 2, "output_penalty": 0.1, "weight_penalty": 0.01, "label_loss": MeanBCE(),
        "seed": 0, "prune": False,
        "optimizer": LinearAdamW(learning_rate=1e-3, new_rate_factor=1, weight_decay=0.01, warmup_ratio=0.05),
    }  # fmt: skip
    return BERTML(**settings | changes).eval()


def test_penalties_equal_direct_loops(toy_taxonomy: Taxonomy) -> None:
    torch.manual_seed(0)
    probabilities, weight = torch.rand(5, 11), torch.randn(11, 7)
    gaps = distances = 0.0
    for node, parents in enumerate(toy_taxonomy.parents):
        for parent in parents:
            for document in probabilities:
                gaps += max(0.0, (document[node] - document[parent]).item())
            distances += 0.5 * sum((weight[parent][k] - weight[node][k]).item() ** 2 for k in range(7))
    found = match_penalties(probabilities, weight, toy_taxonomy.edge_index())
    assert [value.item() for value in found] == pytest.approx([gaps, distances], rel=1e-5)


def test_a_flat_taxonomy_has_no_penalties() -> None:
    taxonomy = Taxonomy([("ROOT", "A"), ("ROOT", "B")])
    assert taxonomy.edge_index().shape == (2, 0)
    assert [v.item() for v in match_penalties(torch.rand(2, 2), torch.randn(2, 3), taxonomy.edge_index())] == [0, 0]


def test_head_sees_cls_of_the_last_layers() -> None:
    model = make()
    batch = model.collator(training=False)(toy_examples(model.tokenizer, model.taxonomy))
    with torch.no_grad():
        stock = model.backbone.model.bert(batch.input_ids, batch.attention_mask, output_hidden_states=True)
        cls = torch.cat([states[:, 0] for states in stock.hidden_states[-2:]], dim=-1)
        torch.testing.assert_close(model(batch), model.head(cls), atol=1e-5, rtol=0)


def test_loss_is_the_mean_cross_entropy_and_the_penalties() -> None:
    model = make()
    batch = model.collator(training=False)(toy_examples(model.tokenizer, model.taxonomy))
    with torch.no_grad():
        terms = model.loss_terms(batch)
        p = model(batch).double().sigmoid()
    y = batch.targets.double()
    label = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    gaps, distances = match_penalties(p, model.head.weight, model.taxonomy.edge_index())
    assert terms["label"].item() == pytest.approx(label.item(), rel=1e-5)
    assert terms["loss"].item() == pytest.approx((label + 0.1 * gaps + 0.01 * distances).item(), rel=1e-5)
    with torch.no_grad():
        assert make(output_penalty=0, weight_penalty=0).loss_terms(batch)["loss"].item() == pytest.approx(label.item())


def test_all_that_is_trained_has_a_gradient() -> None:
    model = make()
    model.loss_terms(model.collator(training=True)(toy_examples(model.tokenizer, model.taxonomy)))["loss"].backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 3}, r"model.num_layers=3: expected an integer in \[1, 2\]"),
        ({"output_penalty": -1}, "model.output_penalty=-1: expected a number >= 0"),
        ({"weight_penalty": -1}, "model.weight_penalty=-1: expected a number >= 0"),
    ],
)
def test_bad_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**change)


def test_gaps_are_those_of_the_scores_before_they_are_made_coherent() -> None:
    examples = toy_examples(make().tokenizer, make().taxonomy)
    terms = []
    for coherent in (False, True):
        model = make(coherent=coherent)
        with torch.no_grad():
            model.head.weight.normal_()
            terms.append(model.loss_terms(model.collator(training=False)(examples)))
    assert terms[0]["gaps"] == terms[1]["gaps"] > 0


def test_a_length_without_room_for_text_is_refused() -> None:
    with pytest.raises(ValueError, match=r"backbone\.max_length=2 leaves no room for a text; set it to 3 or more"):
        make(max_length=2)


def test_gaps_are_summed_over_the_documents_of_all_ranks(tmp_path: Path) -> None:
    """The mean over two ranks of half a batch each, as gradients are averaged, is the whole batch."""
    model = make()
    examples = toy_examples(model.tokenizer, model.taxonomy)
    with torch.no_grad():
        expected = model.loss_terms(model.collator(training=False)(examples))
    multiprocessing.start_processes(_half, args=(tmp_path,), nprocs=2, start_method="fork")
    halves = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for name in ("gaps", "distances", "label", "loss"):
        torch.testing.assert_close((halves[0][name] + halves[1][name]) / 2, expected[name], msg=name)


def _half(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)  # those of the forked process are gone
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = make()
    examples = toy_examples(model.tokenizer, model.taxonomy)
    with torch.no_grad():
        terms = model.loss_terms(model.collator(training=False)(examples[rank::2]))
    torch.save(terms, folder / f"{rank}.pt")
    dist.destroy_process_group()
