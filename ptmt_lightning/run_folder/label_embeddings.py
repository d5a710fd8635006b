"""What label-token embeddings represent: nearest neighbours, and how often they are siblings (paper, section A.11).

Shape legend: ``V`` nodes, ``H`` hidden size.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.manifold import TSNE
from torch import Tensor

from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.edges import ROOT

NUM_NEIGHBOURS = 3
_SEED = 0  # gives the same map each time
_MAX_PERPLEXITY = 15.0


def siblings(taxonomy: Taxonomy) -> Tensor:
    """Return bool ``[V, V]``: which pairs are different nodes of one level with a common parent.

    Top nodes are left out: all of them are siblings, so their neighbours would say nothing.
    """
    parents = torch.zeros(len(taxonomy), len(taxonomy), dtype=torch.bool)
    for node, above in enumerate(taxonomy.parents):
        parents[node, list(above)] = True
    related = (parents.float() @ parents.float().T) > 0
    return related & same_level(taxonomy)


def same_level(taxonomy: Taxonomy) -> Tensor:
    """Return bool ``[V, V]``: which pairs are different nodes of one level."""
    levels = torch.tensor(taxonomy.levels)
    return (levels[:, None] == levels) & ~torch.eye(len(taxonomy), dtype=torch.bool)


def similarities(embeddings: Tensor) -> Tensor:
    """Return the cosines ``[V, V]`` of embeddings ``[V, H]`` after their mean is subtracted.

    Embeddings of one table have a large part in common; without it, only what tells labels apart is compared.
    """
    centred = F.normalize(embeddings.float() - embeddings.float().mean(dim=0), dim=-1)
    return centred @ centred.T


def sibling_share(embeddings: Tensor, taxonomy: Taxonomy) -> float:
    """Return the share of nodes whose most similar node of the same level is a sibling.

    Nodes without a sibling are left out; without any other node the share is nan.
    """
    related = siblings(taxonomy)
    has_sibling = related.any(dim=1)
    nearest = similarities(embeddings).masked_fill(~same_level(taxonomy), -torch.inf).argmax(dim=1)
    return related.gather(1, nearest[:, None]).squeeze(1)[has_sibling].float().mean().item()


def chance(taxonomy: Taxonomy) -> float:
    """Return the :func:`sibling_share` to expect of embeddings that know nothing of the taxonomy."""
    related, level = siblings(taxonomy), same_level(taxonomy)
    has_sibling = related.any(dim=1)
    return (related.sum(dim=1) / level.sum(dim=1).clamp_min(1))[has_sibling].mean().item()


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
        ``label, level, parent, x, y, before_1, before_1_sibling, before_1_cosine, ..., after_1, ...``.
    """
    x, y = _project(after).T.tolist()
    parents = [" | ".join(taxonomy.names[node] for node in nodes) or ROOT for nodes in taxonomy.parents]
    columns: dict[str, Any] = {"label": taxonomy.names, "level": taxonomy.levels, "parent": parents, "x": x, "y": y}
    related, level = siblings(taxonomy), same_level(taxonomy)
    for stage, embeddings in (("before", before), ("after", after)):
        cosines = similarities(embeddings).masked_fill(~level, -torch.inf)
        values, nodes = cosines.topk(min(NUM_NEIGHBOURS, len(taxonomy)), dim=1)
        for rank in range(nodes.shape[1]):
            found = values[:, rank].isfinite().tolist()
            near = nodes[:, rank].tolist()
            name = f"{stage}_{rank + 1}"
            columns[name] = [taxonomy.names[n] if ok else None for n, ok in zip(near, found, strict=True)]
            columns[f"{name}_sibling"] = [bool(related[node, n]) for node, n in enumerate(near)]
            columns[f"{name}_cosine"] = [
                round(value, 4) if ok else None for value, ok in zip(values[:, rank].tolist(), found, strict=True)
            ]
    return pd.DataFrame(columns)


def _project(embeddings: Tensor) -> Tensor:
    """Return places ``[V, 2]`` that keep neighbourhoods (t-SNE by cosine); below four rows, the first two columns."""
    if len(embeddings) < 4:
        return embeddings[:, :2].float()
    centred = (embeddings.float() - embeddings.float().mean(dim=0)).numpy()
    perplexity = min(_MAX_PERPLEXITY, (len(embeddings) - 1) / 3)
    places = TSNE(perplexity=perplexity, metric="cosine", init="random", random_state=_SEED).fit_transform(centred)
    return torch.from_numpy(places)
