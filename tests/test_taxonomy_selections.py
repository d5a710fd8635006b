"""Prune and augment against slow references in plain Python."""

from __future__ import annotations

import torch
from hypothesis import given
from random_taxonomies import (
    DAG_EDGES,
    Edges,
    parents_of,
    quick,
    select,
    taxonomies_with_selections,
    to_names,
    to_tensor,
)

from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.edges import ROOT

# ---- prune ----


def slow_prune(edges: Edges, selected: set[str]) -> set[str]:
    kept = set(selected)
    while unsupported := {name for name in kept if not parents_of(edges, name) & (kept | {ROOT})}:
        kept -= unsupported
    return kept


def test_prune_drops_a_node_without_its_parent_and_what_hangs_below(toy_taxonomy: Taxonomy) -> None:
    predicted = select(toy_taxonomy, "AA", "AAA", "B", "BB", "C")
    assert to_names(toy_taxonomy, toy_taxonomy.prune(predicted)) == {"B", "BB", "C"}


def test_prune_gives_a_new_tensor(toy_taxonomy: Taxonomy) -> None:
    predicted = select(toy_taxonomy, "AA")
    assert not toy_taxonomy.prune(predicted).any()
    assert to_names(toy_taxonomy, predicted) == {"AA"}


def test_prune_never_drops_a_node_under_the_root_and_under_another() -> None:
    taxonomy = Taxonomy(DAG_EDGES)
    assert to_names(taxonomy, taxonomy.prune(select(taxonomy, "D"))) == {"D"}


def test_prune_keeps_a_node_that_one_parent_of_several_supports() -> None:
    taxonomy = Taxonomy(DAG_EDGES)
    assert to_names(taxonomy, taxonomy.prune(select(taxonomy, "A", "C", "E"))) == {"A", "C", "E"}
    assert to_names(taxonomy, taxonomy.prune(select(taxonomy, "B", "C", "E"))) == set()


@quick
@given(taxonomies_with_selections())
def test_prune_matches_the_reference(case: tuple[Taxonomy, list[set[str]]]) -> None:
    taxonomy, selections = case
    kept = taxonomy.prune(to_tensor(taxonomy, selections))
    assert [to_names(taxonomy, row) for row in kept] == [slow_prune(list(taxonomy.edges), s) for s in selections]


@quick
@given(taxonomies_with_selections())
def test_prune_is_idempotent_and_only_drops(case: tuple[Taxonomy, list[set[str]]]) -> None:
    taxonomy, selections = case
    predicted = to_tensor(taxonomy, selections)
    kept = taxonomy.prune(predicted)
    assert torch.equal(taxonomy.prune(kept), kept)
    assert not (kept & ~predicted).any()


@quick
@given(taxonomies_with_selections())
def test_every_kept_node_has_a_kept_parent_or_hangs_under_the_root(case: tuple[Taxonomy, list[set[str]]]) -> None:
    taxonomy, selections = case
    for row in taxonomy.prune(to_tensor(taxonomy, selections)):
        kept = to_names(taxonomy, row) | {ROOT}
        assert all(parents_of(list(taxonomy.edges), name) & kept for name in kept - {ROOT})


# ---- augment ----


def slow_augment(edges: Edges, selected: set[str]) -> set[str]:
    grown = set(selected)
    while missing := {parent for name in grown for parent in parents_of(edges, name)} - grown - {ROOT}:
        grown |= missing
    return grown


def test_augment_adds_all_ancestors(toy_taxonomy: Taxonomy) -> None:
    labels = select(toy_taxonomy, "AAA", "BC")
    assert to_names(toy_taxonomy, toy_taxonomy.augment(labels)) == {"A", "AA", "AAA", "B", "BC"}
    assert to_names(toy_taxonomy, labels) == {"AAA", "BC"}


def test_augment_follows_every_parent_in_a_dag() -> None:
    taxonomy = Taxonomy(DAG_EDGES)
    assert to_names(taxonomy, taxonomy.augment(select(taxonomy, "E"))) == {"A", "B", "C", "E"}


@quick
@given(taxonomies_with_selections())
def test_augment_matches_the_reference(case: tuple[Taxonomy, list[set[str]]]) -> None:
    taxonomy, selections = case
    grown = taxonomy.augment(to_tensor(taxonomy, selections))
    assert [to_names(taxonomy, row) for row in grown] == [slow_augment(list(taxonomy.edges), s) for s in selections]


@quick
@given(taxonomies_with_selections())
def test_augment_is_idempotent_and_only_adds(case: tuple[Taxonomy, list[set[str]]]) -> None:
    taxonomy, selections = case
    labels = to_tensor(taxonomy, selections)
    grown = taxonomy.augment(labels)
    assert torch.equal(taxonomy.augment(grown), grown)
    assert not (labels & ~grown).any()


@quick
@given(taxonomies_with_selections())
def test_prune_leaves_an_augmented_selection_alone(case: tuple[Taxonomy, list[set[str]]]) -> None:
    taxonomy, selections = case
    grown = taxonomy.augment(to_tensor(taxonomy, selections))
    assert torch.equal(taxonomy.prune(grown), grown)
