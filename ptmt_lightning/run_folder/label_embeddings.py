"""What label-token embeddings represent: nearest neighbours, and how often they are siblings (section A.11).

Shape legend: ``V`` nodes, ``H`` hidden size.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.manifold import TSNE
from torch import Tensor

from ptmt_lightning.taxonomy import ROOT, Taxonomy

NUM_NEIGHBOURS = 3
_SEED = 0  # of the map
_MAX_PERPLEXITY = 15.0


def siblings(taxonomy: Taxonomy) -> Tensor:
    """Bool ``[V, V]``: different nodes of one level with a parent in common, top nodes left out.

    Top nodes are all siblings of each other: their neighbours say nothing.
    """
    parents = torch.zeros(len(taxonomy), len(taxonomy), dtype=torch.bool)
    for node, above in enumerate(taxonomy.parents):
        parents[node, list(above)] = True
    related = (parents.float() @ parents.float().T) > 0
    return related & same_level(taxonomy)


def same_level(taxonomy: Taxonomy) -> Tensor:
    """Bool ``[V, V]``: different nodes of one level."""
    levels = torch.tensor(taxonomy.levels)
    return (levels[:, None] == levels) & ~torch.eye(len(taxonomy), dtype=torch.bool)


def similarities(embeddings: Tensor) -> Tensor:
    """Cosines ``[V, V]`` of embeddings ``[V, H]`` from which their mean is taken.

    Embeddings of one table share a large common part; without it what tells labels apart is left.
    """
    centred = F.normalize(embeddings.float() - embeddings.float().mean(dim=0), dim=-1)
    return centred @ centred.T


def sibling_share(embeddings: Tensor, taxonomy: Taxonomy) -> float:
    """How often the most similar node of the same level is a sibling, of the nodes that have one; nan if none has."""
    related = siblings(taxonomy)
    has_sibling = related.any(dim=1)
    nearest = similarities(embeddings).masked_fill(~same_level(taxonomy), -torch.inf).argmax(dim=1)
    return related.gather(1, nearest[:, None]).squeeze(1)[has_sibling].float().mean().item()


def chance(taxonomy: Taxonomy) -> float:
    """What :func:`sibling_share` is on average where embeddings know nothing of the taxonomy."""
    related, level = siblings(taxonomy), same_level(taxonomy)
    has_sibling = related.any(dim=1)
    return (related.sum(dim=1) / level.sum(dim=1).clamp_min(1))[has_sibling].mean().item()


def summary(before: Tensor, after: Tensor, taxonomy: Taxonomy) -> dict[str, float | None]:
    """Sibling shares before and after training and by chance; None where no node has a sibling."""
    shares = {
        "sibling_share_before": sibling_share(before, taxonomy),
        "sibling_share_after": sibling_share(after, taxonomy),
        "sibling_share_chance": chance(taxonomy),
    }
    return {name: round(share, 4) if share == share else None for name, share in shares.items()}


def table(before: Tensor, after: Tensor, taxonomy: Taxonomy) -> pd.DataFrame:
    """One row a node: place on the map, and the most similar nodes of its level before and after training.

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
    """Places ``[V, 2]`` that keep neighbourhoods (t-SNE by cosine), or the first two columns of very few rows."""
    if len(embeddings) < 4:
        return embeddings[:, :2].float()
    centred = (embeddings.float() - embeddings.float().mean(dim=0)).numpy()
    perplexity = min(_MAX_PERPLEXITY, (len(embeddings) - 1) / 3)
    places = TSNE(perplexity=perplexity, metric="cosine", init="random", random_state=_SEED).fit_transform(centred)
    return torch.from_numpy(places)
