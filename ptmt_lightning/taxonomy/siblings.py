"""Softmax over siblings: the probability of each node given its parent, and from these that of each node.

Shape legend: ``B`` documents, ``V`` nodes, ``E`` edges with those from the root, ``G`` parents (the root first),
``K`` most children of a parent.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ptmt_lightning.taxonomy.taxonomy import Taxonomy


class Siblings(nn.Module):
    """The children of each parent, among which a path goes on to one or ends; the end has logit 0.

    In a DAG a node is a sibling in the group of each of its parents, with the same score.

    Args:
        taxonomy: hierarchy of the labels.

    Attributes:
        child: node of each edge, int64 ``[E]``.
        parent: node above each edge, plus 1; 0 for the root, int64 ``[E]``.
        group: number of each edge's parent among all parents, int64 ``[E]``.
        group_parent: the parents, as ``parent`` counts them, int64 ``[G]``.
    """

    child: Tensor
    parent: Tensor
    group: Tensor
    group_parent: Tensor
    table: Tensor  # int64 [G, K], edges of each parent, filled up with E

    def __init__(self, taxonomy: Taxonomy) -> None:
        super().__init__()
        edges = [
            (parent + 1, node)
            for node, parents in enumerate(taxonomy.parents)
            for parent in ([-1] if node in taxonomy.tops else []) + sorted(parents)
        ]
        parents = sorted({parent for parent, _ in edges})
        members = [[number for number, (above, _) in enumerate(edges) if above == parent] for parent in parents]
        most = max(map(len, members))
        table = [edges_of + [len(edges)] * (most - len(edges_of)) for edges_of in members]
        number_of = {parent: number for number, parent in enumerate(parents)}
        for name, values in {
            "child": [node for _, node in edges], "parent": [parent for parent, _ in edges],
            "group": [number_of[parent] for parent, _ in edges], "group_parent": parents, "table": table,
        }.items():  # fmt: skip
            self.register_buffer(name, torch.tensor(values), persistent=False)
        self.level_sizes = taxonomy.level_sizes
        levels = [taxonomy.levels[node] for _, node in edges]  # edges are ordered by node, and so by level
        self.edges_of_level = [levels.count(level) for level in range(1, taxonomy.num_levels + 1)]

    def log_conditionals(
        self, logits_BV: Tensor, shift_E: Tensor | None = None, end_shift_G: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities given each parent: of its children ``[B, E]``, and of the end ``[B, G]``.

        Args:
            logits_BV: scores of nodes.
            shift_E: added to the scores of children; None for 0.
            end_shift_G: added to those of the ends; None for 0.
        """
        scores_BE = logits_BV.float()[:, self.child]
        end_G = scores_BE.new_zeros(len(self.group_parent)) if end_shift_G is None else end_shift_G
        if shift_E is not None:
            scores_BE = scores_BE + shift_E
        children_BGK = F.pad(scores_BE, (0, 1), value=-torch.inf)[:, self.table]
        ends_BG1 = end_G.expand(len(scores_BE), -1)[..., None]
        totals_BG = torch.cat([children_BGK, ends_BG1], dim=-1).logsumexp(dim=-1)
        return scores_BE - totals_BG[:, self.group], end_G - totals_BG

    def probabilities(self, logits_BV: Tensor) -> Tensor:
        """Return the probability of each node, ``[B, V]``: that of a way down to it, summed over all ways."""
        log_BE, _ = self.log_conditionals(logits_BV)
        given_BE = log_BE.exp()
        reached = torch.ones_like(given_BE[:, :1])  # the root
        first_edge = 0
        for size, num_edges in zip(self.level_sizes, self.edges_of_level, strict=True):
            edges = slice(first_edge, first_edge + num_edges)
            ways = reached[:, self.parent[edges]] * given_BE[:, edges]
            nodes = (self.child[edges] - (reached.shape[1] - 1)).expand_as(ways)
            level = ways.new_zeros(len(ways), size).scatter_add(1, nodes, ways)
            reached, first_edge = torch.cat([reached, level], dim=1), first_edge + num_edges
        return reached[:, 1:].clamp_max(1.0)
