"""The taxonomy: a tree or DAG of labels under one root, with operations on arrays over its nodes.

Shape legend: ``B`` documents, ``V`` nodes (the root is not one of them), ``E`` edges.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize

import torch
from torch import Tensor

from ptmt_lightning.taxonomy.edges import ROOT, check_edges, longest_path_levels
from ptmt_lightning.taxonomy.files import edges_of_paths, read_tsv, write_paths
from ptmt_lightning.taxonomy.label_paths import LabelPaths
from ptmt_lightning.utils.files import read_json_object


class Taxonomy(LabelPaths):
    """A label hierarchy with its nodes ordered by level, so that the nodes of one level are one contiguous slice.

    The level of a node is the length of its longest path from the root (top nodes have level 1);
    in a tree that is its depth, in a DAG it puts every parent on a level above all of its children.
    Memory is linear in nodes and edges.

    A node has a name that is its own, and a label, by which paths call it: the two differ only where several nodes
    share a label, as in ``Laptop > Battery`` and ``Phone > Battery``, whose names are these whole paths.

    Args:
        edges: ``(parent, child)`` names in file order; top nodes hang under ``ROOT``.
        labels: label of each name that is not its own label.
        source: what error messages call the origin of the edges; edge ``i`` is on its line ``i + 1``.

    Attributes:
        names: name of each node, unique; for tables of single nodes.
        labels: label of each node, unique below one parent; for paths.
        index: node of each name.
        level_sizes: number of nodes on each level.
        parents: parents of each node, the root left out.
        tops: nodes that are children of the root.

    Raises:
        ValueError: no edges, a duplicate edge, a cycle, a node with no way to the root, or labels of other nodes or
            shared by children of one parent.
    """

    def __init__(
        self, edges: Iterable[tuple[str, str]], *, labels: Mapping[str, str] | None = None, source: str = "edges"
    ) -> None:
        self.edges = tuple(edges)
        line_of = check_edges(self.edges, source)
        level_of_name = longest_path_levels(self.edges, line_of, source)
        # sorted() is stable: within a level the nodes keep the order in which the file names them.
        self.names = tuple(sorted(level_of_name, key=level_of_name.__getitem__))
        self.index = {name: node for node, name in enumerate(self.names)}
        counts = Counter(level_of_name.values())
        self.level_sizes: tuple[int, ...] = tuple(counts[level] for level in sorted(counts))
        self.parents = self._parents()
        self.tops = frozenset(self.index[child] for parent, child in self.edges if parent == ROOT)
        self.labels = tuple((labels or {}).get(name, name) for name in self.names)
        self.check_labels(labels or {}, source)
        self._edge_blocks: dict[torch.device, list[_EdgeBlock]] = {}
        self._parent_tables: dict[torch.device, Tensor] = {}

    @property
    def fingerprint(self) -> str:
        """A digest of the nodes, in their order, and of what is above each: equal for equal taxonomies alone."""
        parents = [sorted(above) for above in self.parents]
        parts: list[object] = [self.names, parents, sorted(self.tops)]
        if self.labels != self.names:  # without, as in versions that knew names alone
            parts.append(self.labels)
        content = json.dumps(parts, ensure_ascii=False)
        return hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()[:16]

    @classmethod
    def from_tsv(cls, path: Path | str) -> Taxonomy:
        """Read a text file of one of two forms; blank lines are allowed only at its end.

        Either each line is an edge ``parent<TAB>child`` between names that identify nodes; a node may have several
        parents. Or the first line is ``level1<TAB>level2<TAB>...``, and each other one a path, of which each beginning
        is a node of its own.

        Raises:
            ValueError: no such file, an empty or malformed one, or edges that are no taxonomy.
        """
        found = read_tsv(Path(path))
        return cls(found.edges, labels=found.labels, source=str(path))

    @classmethod
    def from_paths(cls, paths: Iterable[Sequence[str]], *, source: str = "paths") -> Taxonomy:
        """Return the tree of the given paths, with a node for each path and each beginning of one.

        Args:
            paths: labels of each path, from a top node down, in any Unicode form; nodes keep the order in which they
                first occur.
            source: what error messages call the origin of the paths.

        Raises:
            ValueError: no paths, or two that can't be told apart where they are written in one piece.
        """
        found = edges_of_paths(([normalize("NFC", label) for label in path] for path in paths), source)
        return cls(found.edges, labels=found.labels, source=source)

    def to_tsv(self, path: Path | str) -> None:
        """Write the whole path of each node to a text file, which :meth:`from_tsv` reads as an equal taxonomy.

        Raises:
            ValueError: a node has several parents, and so no path of its own.
        """
        for node, parents in enumerate(self.parents):
            if len(parents) + (node in self.tops) > 1:
                raise ValueError(f"{self.names[node]!r} has several parents; expected a tree; write its edges instead")
        write_paths(Path(path), [self.path_names(self.path_to(node)) for node in range(len(self))])

    @classmethod
    def from_json(cls, path: Path | str) -> Taxonomy:
        """Read a file written by :meth:`to_json`; the nodes keep their order.

        Raises:
            ValueError: no such file, one that holds no edges, or edges that are no taxonomy; the message names it.
        """
        content = read_json_object(Path(path))
        edges, labels = content.get("edges"), content.get("labels", {})
        if not isinstance(edges, list) or not all(map(_is_edge, edges)) or not _is_labels(labels):
            raise ValueError(f"{path}: expected {{'edges': [[parent, child], ...]}}; restore the file")
        return cls([(parent, child) for parent, child in edges], labels=labels, source=str(path))

    def to_json(self, path: Path | str) -> None:
        """Write the edges to a JSON file, and the labels that are not names."""
        content: dict[str, object] = {"root": ROOT, "edges": self.edges}
        if labels := {name: label for name, label in zip(self.names, self.labels, strict=True) if name != label}:
            content["labels"] = labels
        Path(path).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def num_levels(self) -> int:
        """Number of levels."""
        return len(self.level_sizes)

    @cached_property
    def level_slices(self) -> tuple[slice, ...]:
        """Slice of the nodes on each level."""
        slices, start = [], 0
        for size in self.level_sizes:
            slices.append(slice(start, start + size))
            start += size
        return tuple(slices)

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """Level of each node, 1 for top nodes."""
        return tuple(level for level, size in enumerate(self.level_sizes, start=1) for _ in range(size))

    @cached_property
    def is_tree(self) -> bool:
        """Whether each node has one parent, be it the root."""
        return all(len(parents) + (node in self.tops) == 1 for node, parents in enumerate(self.parents))

    def _parents(self) -> tuple[tuple[int, ...], ...]:
        parents: list[list[int]] = [[] for _ in self.names]
        for parent, child in self.edges:
            if parent != ROOT:
                parents[self.index[child]].append(self.index[parent])
        return tuple(tuple(nodes) for nodes in parents)

    def edge_index(self) -> Tensor:
        """Return the edges between nodes, int64 ``[2, E]``: parents, then children; the root's edges are left out."""
        pairs = [(parent, node) for node, parents in enumerate(self.parents) for parent in parents]
        return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T.contiguous()

    # ---- operations on arrays: they loop over levels, never over nodes or documents ----

    def prune(self, predicted: Tensor) -> Tensor:
        """Drop every predicted node that has no remaining parent, from level 2 down (section 2.3).

        Args:
            predicted: bool ``[..., V]``. Children of the root are never dropped.

        Returns:
            bool ``[..., V]``, a new tensor.
        """
        kept = predicted.clone()
        for block in self._blocks(predicted.device):
            is_supported = kept.index_select(-1, block.parents)
            if not self.is_tree:  # in one, parents are in the order of their children
                supporters = block.under_root.expand(*kept.shape[:-1], -1).clone()
                is_supported = supporters.index_add_(-1, block.children, is_supported.int()) > 0
            kept[..., block.nodes] &= is_supported
        return kept

    def augment(self, labels: Tensor) -> Tensor:
        """Add all ancestors of every labelled node (Kiritchenko et al. 2006).

        Args:
            labels: bool ``[..., V]``.

        Returns:
            bool ``[..., V]``, a new tensor.
        """
        if self.is_tree:  # a document has few labels: each goes up by itself
            augmented = labels.clone()
            *documents, nodes = labels.nonzero(as_tuple=True)
            parents = self._parent_table(labels.device)[:, 0]
            for _ in self.level_sizes[1:]:
                nodes = parents[nodes]
                augmented[(*documents, nodes)] = True
            return augmented
        counts = labels.int()
        for block in reversed(self._blocks(labels.device)):
            present = (counts[..., block.nodes] > 0).int()
            counts.index_add_(-1, block.parents, present.index_select(-1, block.children))
        return counts > 0

    def coherent(self, scores: Tensor) -> Tensor:
        """Lower the score of every node to at most that of its highest-scored parent, from level 2 down.

        No node is then above all of its parents, and ``coherent(p) > t`` equals ``prune(p > t)`` for every threshold
        ``t``. Children of the root keep their scores.

        Args:
            scores: probabilities or logits, ``[..., V]``.

        Returns:
            ``[..., V]``, a new tensor.
        """
        bounded = scores[..., self.level_slices[0]].clone()
        for block in self._blocks(scores.device):
            level, bound = scores[..., block.nodes], bounded.index_select(-1, block.parents)
            if not self.is_tree:
                children = block.children.expand(*level.shape[:-1], -1)
                lowest = torch.full_like(level, -torch.inf).masked_fill(block.under_root > 0, torch.inf)
                bound = lowest.scatter_reduce(-1, children, bound, "amax")
            bounded = torch.cat([bounded, torch.minimum(level, bound)], dim=-1)
        return bounded

    def raised(self, scores: Tensor) -> Tensor:
        """Raise the score of every node to at least that of its highest-scored descendant.

        ``raised(p) > t`` equals ``augment(p > t)`` for every threshold ``t``. In a tree, the scores that
        :meth:`coherent` returns stay as they are.

        Args:
            scores: probabilities or logits, ``[..., V]``.

        Returns:
            ``[..., V]``, a new tensor.
        """
        raised = scores.clone()
        for block in reversed(self._blocks(scores.device)):
            children = raised[..., block.nodes].index_select(-1, block.children)
            raised.scatter_reduce_(-1, block.parents.expand_as(children), children, "amax")
        return raised

    def best_path(self, probabilities: Tensor, *, to_leaf: bool) -> Tensor:
        """Choose one path a document: the one that most probably is the document's, by the product of probabilities.

        The probability of a path that ends at a node is the product of those of the nodes on it and, where paths may
        end above the leaves, of one minus those of the node's children. Of several ways down to a node the most
        probable counts.

        Args:
            probabilities: ``[B, V]``.
            to_leaf: whether each path leads down to a leaf.

        Returns:
            The nodes on the path, bool ``[B, V]``.
        """
        tiny = torch.finfo(torch.float32).tiny
        probabilities = probabilities.float()
        log_p = probabilities.clamp_min(tiny).log()
        ending = (1 - probabilities).clamp_min(tiny).log()
        end = torch.zeros_like(log_p)
        ways = [log_p[:, self.level_slices[0]]]
        for block in self._blocks(log_p.device):
            level = log_p[:, block.nodes]
            above = torch.full_like(level, -torch.inf).masked_fill(block.under_root > 0, 0.0)
            children = block.children.expand(len(level), -1)
            above = above.scatter_reduce(-1, children, torch.cat(ways, dim=-1)[:, block.parents], "amax")
            ways.append(level + above)
            if to_leaf:
                end[:, block.parents] = -torch.inf
            else:
                end.index_add_(-1, block.parents, ending[:, block.nodes][:, block.children])
        way = torch.cat(ways, dim=-1)
        node = (way + end).argmax(dim=-1, keepdim=True)
        chosen = torch.zeros_like(way, dtype=torch.bool)
        for _ in range(self.num_levels):
            chosen.scatter_(-1, node, True)
            node = self._best_parent(way, node)
        return chosen

    def _best_parent(self, way: Tensor, node: Tensor) -> Tensor:
        """Return the parent of each node ``[B, 1]`` with the highest score ``[B, V]``; a top node itself."""
        parents = self._parent_table(way.device)[node.squeeze(-1)]
        best = way.gather(-1, parents).argmax(dim=-1, keepdim=True)
        return parents.gather(-1, best)

    def _parent_table(self, device: torch.device) -> Tensor:
        """Return the parents of each node, filled up, int64 ``[V, most parents]``; of a top node itself."""
        if device not in self._parent_tables:
            rows = [(node,) if node in self.tops else parents for node, parents in enumerate(self.parents)]
            most = max(map(len, rows))
            with torch.inference_mode(False):
                filled = [(*row, *row[:1] * (most - len(row))) for row in rows]
                self._parent_tables[device] = torch.tensor(filled, device=device)
        return self._parent_tables[device]

    def _blocks(self, device: torch.device) -> list[_EdgeBlock]:
        """Return the edges grouped by the level of their child, from level 2 down; they are made once a device."""
        if device not in self._edge_blocks:
            with torch.inference_mode(False):  # training, which may use them later, refuses inference tensors
                self._edge_blocks[device] = [self._block(nodes, device) for nodes in self.level_slices[1:]]
        return self._edge_blocks[device]

    def _block(self, nodes: slice, device: torch.device) -> _EdgeBlock:
        level = range(nodes.start, nodes.stop)
        pairs = [(parent, node - nodes.start) for node in level for parent in self.parents[node]]
        parents, children = torch.tensor(pairs, device=device).T.contiguous()
        under_root = torch.tensor([node in self.tops for node in level], dtype=torch.int32, device=device)
        return _EdgeBlock(nodes, parents, children, under_root)


class _EdgeBlock(NamedTuple):
    """The edges that lead into one level."""

    nodes: slice  # the nodes of the level
    parents: Tensor  # int64 [E], node of each parent
    children: Tensor  # int64 [E], position of each child within its level
    under_root: Tensor  # int32, one a node of the level: 1 where the root is among its parents, possible in a DAG


def _is_edge(edge: object) -> bool:
    return isinstance(edge, list) and len(edge) == 2 and all(isinstance(name, str) for name in edge)


def _is_labels(labels: object) -> bool:
    return isinstance(labels, dict) and all(isinstance(label, str) for label in labels.values())
