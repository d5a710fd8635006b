"""HBGL's label embeddings are pretrained on the hierarchy."""

from __future__ import annotations

import pytest
import torch
from small_hbgl import make

from ptmt_lightning.models import hbgl
from ptmt_lightning.models.hbgl import HBGL
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.edges import ROOT


def without_dropout(model: HBGL) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def test_a_label_begins_as_the_sum_of_its_words() -> None:
    model = make([(ROOT, "m n"), (ROOT, "o")])
    words = model.backbone.token_embeddings
    names = [model.tokenizer(name, add_special_tokens=False)["input_ids"] for name in ("m n", "o")]
    assert [len(ids) for ids in names] == [2, 1]
    expected = torch.stack([sum(words[i] for i in ids) for ids in names])  # type: ignore[misc]
    torch.testing.assert_close(model._initial_rows_VH, expected.detach())


def test_pretraining_fills_masked_labels_from_their_neighbours_and_masked_siblings_answer_for_each_other() -> None:
    model = make([(ROOT, "A"), (ROOT, "B"), ("A", "a1"), ("A", "a2"), ("A", "a3"), ("B", "b1"), ("B", "b2")])
    taxonomy, rows = model.taxonomy, model.label_rows.detach().clone()
    assert taxonomy.names == ("A", "B", "a1", "a2", "a3", "b1", "b2")
    families = [{2, 3, 4}, {5, 6}]
    masked = torch.rand(32, 7, generator=torch.Generator().manual_seed(0)) < 0.15
    bert = model.backbone.model.bert
    words = bert.embeddings.word_embeddings.weight.detach()
    cls, sep, mask = (words[getattr(model.tokenizer, f"{name}_token_id")] for name in ("cls", "sep", "mask"))
    sees = torch.zeros(9, 9, dtype=torch.bool)
    sees[0, 0] = sees[8, 8] = True
    for one, other in ((0, 1), (0, 2), (1, 3), (1, 4), (1, 5), (2, 6), (2, 7)):  # [CLS] A B a1 a2 a3 b1 b2 [SEP]
        sees[one, other] = sees[other, one] = True
    terms = []
    for hidden in masked:
        labels = [mask if hidden[node] else rows[node] for node in range(7)]
        with torch.no_grad():
            states = bert(
                inputs_embeds=torch.stack([cls, *labels, sep])[None],
                token_type_ids=torch.zeros(1, 9, dtype=torch.long),
                position_ids=torch.tensor([[0, 1, 1, 2, 2, 2, 2, 2, 3]]),
                attention_mask=torch.where(sees, 0.0, torch.finfo(torch.float32).min)[None, None],
            ).last_hidden_state[0]
            scores = model.backbone.transform(states) @ rows.T
        for node in hidden.nonzero().flatten().tolist():
            alike = {node}.union(*(family for family in families if node in family))
            for answer in range(7):
                p = scores[node + 1, answer].double().sigmoid()
                terms.append(-(p.log() if answer in alike and hidden[answer] else (1 - p).log()).item())
    assert any(hidden[list(family)].sum() > 1 for hidden in masked for family in families)
    without_dropout(model)
    [loss] = hbgl.pretrain_labels(model.backbone, model.label_rows, taxonomy, model._token, steps=1, rate=1e-3, seed=0)
    assert loss == pytest.approx(sum(terms) / len(terms), rel=1e-4)


def test_graph_mask_is_adjacency_with_the_root_at_cls() -> None:
    taxonomy = Taxonomy([(ROOT, "A"), (ROOT, "B"), ("A", "a")])
    # [CLS] A B a [SEP]
    assert hbgl.graph_mask(taxonomy).int().tolist() == [
        [1, 1, 1, 0, 0],
        [1, 0, 0, 1, 0],
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 0, 0, 1],
    ]


def test_leaves_under_one_parent_answer_for_each_other() -> None:
    taxonomy = Taxonomy([(ROOT, "A"), (ROOT, "B"), ("A", "a1"), ("A", "a2"), ("A", "m"), ("m", "x"), ("B", "b")])
    alike = hbgl.sibling_leaves(taxonomy)
    names = taxonomy.names
    found = {name: {names[n] for n in alike[taxonomy.index[name]].nonzero().flatten().tolist()} for name in names}
    assert found == {n: {n} for n in ("A", "B", "m", "x", "b")} | {n: {"a1", "a2"} for n in ("a1", "a2")}


def test_siblings_in_a_dag_do_not_depend_on_the_order_of_the_edges() -> None:
    taxonomy = Taxonomy([(ROOT, "A"), (ROOT, "B"), ("A", "x"), ("B", "x"), ("B", "y"), ("A", "y"), ("A", "z")])
    alike = hbgl.sibling_leaves(taxonomy)
    x, y, z = (taxonomy.index[name] for name in "xyz")
    assert alike[x, y]
    assert not alike[x, z]


def test_pretraining_changes_the_label_embeddings_alone_and_learns() -> None:
    model = make()
    model.train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    def run() -> list[float]:
        return hbgl.pretrain_labels(
            model.backbone, model.label_rows, model.taxonomy, model._token, steps=40, rate=1e-2, seed=0
        )

    losses = run()
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {"label_rows"}
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.backbone.training
    first = model.label_rows.detach().clone()
    with torch.no_grad():
        model.label_rows.copy_(before["label_rows"])
    torch.rand(1)
    run()
    assert torch.equal(model.label_rows, first)  # seeded
    with torch.no_grad():
        model.label_rows.copy_(before["label_rows"])
    without_dropout(model)
    run()
    assert not torch.equal(model.label_rows, first)
