"""What label-token embeddings represent: nearest neighbours, and how often they are siblings (paper, section A.11).

Of a large taxonomy a sample of nodes is looked at, but their neighbours are sought among all nodes.

Shape legend: ``V`` nodes, ``S`` nodes of the sample, ``H`` hidden size, ``K`` neighbours.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.manifold import TSNE
from torch import Tensor

from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.edges import ROOT

NUM_NEIGHBOURS = 3
_SEED = 0  # gives the same sample and the same map each time
_MAX_PERPLEXITY = 15.0
_SAMPLE = 2000  # nodes; so many are placed on a map in half a minute
_CELLS = 2**24  # similarities that are held at a time, 64 MiB


class Families:
    """The siblings of each node: different nodes of one level with a common parent.

    Top nodes have none: all of them would be siblings, so their neighbours would say nothing.

    Args:
        taxonomy: hierarchy of the nodes.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        self._taxonomy = taxonomy
        self._families: dict[tuple[int, tuple[int, ...]], frozenset[int]] = {}

    @cached_property
    def _children(self) -> dict[tuple[int, int], list[int]]:
        """The children of each parent on each level."""
        children: dict[tuple[int, int], list[int]] = {}
        for node, (level, parents) in enumerate(zip(self._taxonomy.levels, self._taxonomy.parents, strict=True)):
            for parent in parents:
                children.setdefault((level, parent), []).append(node)
        return children

    def of(self, node: int) -> frozenset[int]:
        """Return a node's siblings and itself; nothing for a top node."""
        level, parents = key = (self._taxonomy.levels[node], self._taxonomy.parents[node])
        if key not in self._families:
            self._families[key] = frozenset().union(*(self._children[level, parent] for parent in parents))
        return self._families[key]


class Neighbours(NamedTuple):
    """The nodes of the same level that are most similar to each of some nodes, the most similar one first."""

    nodes: Tensor  # int64 [S, K]
    cosines: Tensor  # [S, K], -inf where the level has no further node


def sample(taxonomy: Taxonomy) -> Tensor:
    """Return the nodes to look at, int64 ``[S]`` in ascending order: all, of a large taxonomy 2,000 drawn at random."""
    if len(taxonomy) <= _SAMPLE:
        return torch.arange(len(taxonomy))
    drawn = torch.randperm(len(taxonomy), generator=torch.Generator().manual_seed(_SEED))
    return drawn[:_SAMPLE].sort().values


def centred(embeddings: Tensor) -> Tensor:
    """Return embeddings ``[V, H]`` without their mean, of length 1: products of these are the similarities.

    Embeddings of one table have a large part in common; without it, only what tells labels apart is compared.
    """
    return F.normalize(embeddings.float() - embeddings.float().mean(dim=0), dim=-1)


def neighbours(embeddings: Tensor, taxonomy: Taxonomy, nodes: Tensor, size: int = NUM_NEIGHBOURS) -> Neighbours:
    """Return the ``size`` most similar nodes of the same level for each of some nodes, by the cosine.

    Args:
        embeddings: of all nodes, ``[V, H]``.
        taxonomy: hierarchy of the nodes.
        nodes: the nodes whose neighbours are sought, int64 ``[S]`` in ascending order.
        size: number of neighbours K.
    """
    rows_VH = centred(embeddings)
    near = torch.zeros(len(nodes), size, dtype=torch.long)
    cosines = torch.full((len(nodes), size), -torch.inf)
    bounds = torch.tensor([level.stop for level in taxonomy.level_slices])
    places = torch.searchsorted(nodes, bounds).tolist()  # where the nodes of the next level begin
    for level, first, stop in zip(taxonomy.level_slices, [0, *places], places, strict=False):
        level_rows, found = rows_VH[level], min(size, level.stop - level.start - 1)
        step = max(1, _CELLS // len(level_rows))
        for start in range(first, stop if found else first, step):
            chunk = nodes[start : min(start + step, stop)]
            similar = rows_VH[chunk] @ level_rows.T
            similar[torch.arange(len(chunk)), chunk - level.start] = -torch.inf  # a node is no neighbour of its own
            best = similar.topk(found, dim=1)
            near[start : start + len(chunk), :found] = best.indices + level.start
            cosines[start : start + len(chunk), :found] = best.values
    return Neighbours(near, cosines)


def sibling_share(embeddings: Tensor, taxonomy: Taxonomy) -> float:
    """Return the share of nodes whose most similar node of the same level is a sibling.

    Nodes without a sibling are left out; without any other node the share is nan.
    """
    nodes, families = sample(taxonomy), Families(taxonomy)
    nearest = neighbours(embeddings, taxonomy, nodes, 1).nodes[:, 0]
    hits = [
        near in families.of(node)
        for node, near in zip(nodes.tolist(), nearest.tolist(), strict=True)
        if len(families.of(node)) > 1
    ]
    return sum(hits) / len(hits) if hits else float("nan")


def chance(taxonomy: Taxonomy) -> float:
    """Return the :func:`sibling_share` to expect of embeddings that know nothing of the taxonomy."""
    families = Families(taxonomy)
    shares = [
        (len(families.of(node)) - 1) / (taxonomy.level_sizes[taxonomy.levels[node] - 1] - 1)
        for node in sample(taxonomy).tolist()
        if len(families.of(node)) > 1
    ]
    return sum(shares) / len(shares) if shares else float("nan")


def summary(before: Tensor, after: Tensor, taxonomy: Taxonomy) -> dict[str, float | None]:
    """Return the sibling shares before training, after training and by chance; None where no node has a sibling."""
    shares = {
        "sibling_share_before": sibling_share(before, taxonomy),
        "sibling_share_after": sibling_share(after, taxonomy),
        "sibling_share_chance": chance(taxonomy),
    }
    return {name: round(share, 4) if share == share else None for name, share in shares.items()}


def table(before: Tensor, after: Tensor, taxonomy: Taxonomy) -> pd.DataFrame:
    """Return one row for each node: its place on a map, and the nodes of its level that are most similar to it.

    Args:
        before: embeddings ``[V, H]`` before training.
        after: embeddings ``[V, H]`` after training; the map shows these.
        taxonomy: the taxonomy of the ``V`` nodes.

    Returns:
        ``label, level, parent, x, y, before_1, before_1_sibling, before_1_cosine, ..., after_1, ...``, with a row for
        each node of :func:`sample`.
    """
    names, families, sampled = taxonomy.names, Families(taxonomy), sample(taxonomy)
    nodes = sampled.tolist()
    x, y = _project(after[sampled]).T.tolist()
    columns: dict[str, Any] = {
        "label": [names[node] for node in nodes],
        "level": [taxonomy.levels[node] for node in nodes],
        "parent": [" | ".join(names[parent] for parent in taxonomy.parents[node]) or ROOT for node in nodes],
        "x": x,
        "y": y,
    }
    for stage, embeddings in (("before", before), ("after", after)):
        found = neighbours(embeddings, taxonomy, sampled, min(NUM_NEIGHBOURS, len(taxonomy)))
        for rank, (near, cosines) in enumerate(zip(found.nodes.T.tolist(), found.cosines.T.tolist(), strict=True), 1):
            exists = [cosine > -torch.inf for cosine in cosines]
            name = f"{stage}_{rank}"
            columns[name] = [names[other] if ok else None for other, ok in zip(near, exists, strict=True)]
            columns[f"{name}_sibling"] = [
                ok and other in families.of(node) for node, other, ok in zip(nodes, near, exists, strict=True)
            ]
            columns[f"{name}_cosine"] = [
                round(cosine, 4) if ok else None for cosine, ok in zip(cosines, exists, strict=True)
            ]
    return pd.DataFrame(columns)


def _project(embeddings: Tensor) -> Tensor:
    """Return places ``[S, 2]`` that keep neighbourhoods (t-SNE by cosine); below four rows, the first two columns."""
    if len(embeddings) < 4:
        return embeddings[:, :2].float()
    rows = (embeddings.float() - embeddings.float().mean(dim=0)).numpy()
    perplexity = min(_MAX_PERPLEXITY, (len(embeddings) - 1) / 3)
    places = TSNE(perplexity=perplexity, metric="cosine", init="random", random_state=_SEED).fit_transform(rows)
    return torch.from_numpy(places)
