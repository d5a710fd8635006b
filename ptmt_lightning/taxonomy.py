"""The taxonomy: a tree or DAG of labels under one root, with operations on arrays over its nodes.

Shape legend: ``B`` documents, ``V`` nodes (the root is not one of them), ``E`` edges.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ptmt_lightning.edges import ROOT, check_edges, check_forms, longest_path_levels
from ptmt_lightning.utils.checks import shortened
from ptmt_lightning.utils.files import check_file, read_json_object
from ptmt_lightning.utils.lines import open_lines, problem_of

_MAX_LINE, _MAX_EDGES = 2**14, 2**20  # characters of an edge, edges of a taxonomy: far beyond any that is used
_SHOWN = 200  # characters of a name for which similar ones are looked up


class Taxonomy:
    """A label hierarchy with its nodes ordered by level, so that the nodes of one level are one contiguous slice.

    The level of a node is the length of its longest path from the root (top nodes have level 1);
    in a tree that is its depth, in a DAG it puts every parent on a level above all of its children.
    Memory is linear in nodes and edges.

    Args:
        edges: ``(parent, child)`` names in file order; top nodes hang under ``ROOT``.
        source: what error messages call the origin of the edges; edge ``i`` is on its line ``i + 1``.

    Attributes:
        names: name of each node.
        index: node of each name.
        level_sizes: number of nodes on each level.
        parents: parents of each node, the root left out.
        tops: nodes that are children of the root.

    Raises:
        ValueError: no edges, a duplicate edge, a cycle, or a node with no way to the root.
    """

    def __init__(self, edges: Iterable[tuple[str, str]], *, source: str = "edges") -> None:
        self.edges = tuple(edges)
        line_of = check_edges(self.edges, source)
        level_of_name = longest_path_levels(self.edges, line_of, source)
        # sorted() is stable: within a level the nodes keep the order in which the file names them.
        self.names: tuple[str, ...] = tuple(sorted(level_of_name, key=level_of_name.__getitem__))
        self.index: Mapping[str, int] = {name: node for node, name in enumerate(self.names)}
        self.level_sizes: tuple[int, ...] = _level_sizes([level_of_name[name] for name in self.names])
        self.parents: tuple[tuple[int, ...], ...] = self._parents()
        self.tops = frozenset(self.index[child] for parent, child in self.edges if parent == ROOT)
        self._edge_blocks: dict[torch.device, list[_EdgeBlock]] = {}

    @property
    def fingerprint(self) -> str:
        """A digest of the nodes, in their order, and of what is above each: equal for equal taxonomies alone."""
        parents = [sorted(above) for above in self.parents]
        content = json.dumps([self.names, parents, sorted(self.tops)], ensure_ascii=False)
        return hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()[:16]

    @classmethod
    def from_tsv(cls, path: Path | str) -> Taxonomy:
        """Read a text file with one ``parent<TAB>child`` edge a line; blank lines are allowed only at its end.

        Raises:
            ValueError: no such file, an empty or malformed one, or edges that are no taxonomy.
        """
        expected = f"expected one 'parent<TAB>child' edge a line, top nodes under {ROOT}"
        path = Path(path)
        check_file(path, "expected the taxonomy as one 'parent<TAB>child' edge a line")
        edges: list[tuple[str, str]] = []
        first_blank = 0
        with open_lines(path, longest=_MAX_LINE, newline=None) as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    first_blank = first_blank or number
                    continue
                if first_blank:
                    raise ValueError(f"{path}:{first_blank}: expected 'parent<TAB>child', got ''")
                fields = [field.strip() for field in line.split("\t")]
                problem = problem_of(line)
                if lines.is_cut(line):
                    problem = f"more than {_MAX_LINE:,} characters; expected 'parent<TAB>child'"
                elif len(edges) == _MAX_EDGES:
                    problem = f"more than {_MAX_EDGES:,} edges; expected one a label and parent"
                elif problem is None and (len(fields) != 2 or not all(fields)):
                    problem = f"expected 'parent<TAB>child', got {shortened(repr(line.rstrip(chr(10))))}"
                if problem:
                    raise ValueError(f"{path}:{number}: {problem}")
                edges.append((fields[0], fields[1]))
        if not edges:
            raise ValueError(f"{path}: the file is empty; {expected}")
        check_forms(edges, str(path))
        return cls(edges, source=str(path))

    @classmethod
    def from_json(cls, path: Path | str) -> Taxonomy:
        """Read a file written by :meth:`to_json`; the nodes keep their order.

        Raises:
            ValueError: no such file, one that holds no edges, or edges that are no taxonomy; the message names it.
        """
        edges = read_json_object(Path(path)).get("edges")
        if not isinstance(edges, list) or not all(map(_is_edge, edges)):
            raise ValueError(f"{path}: expected {{'edges': [[parent, child], ...]}}; restore the file")
        return cls([(parent, child) for parent, child in edges], source=str(path))

    def to_json(self, path: Path | str) -> None:
        """Write the edges to a JSON file."""
        Path(path).write_text(json.dumps({"root": ROOT, "edges": self.edges}, ensure_ascii=False), encoding="utf-8")

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
            supporters = block.under_root.expand(*kept.shape[:-1], -1).clone()
            supporters.index_add_(-1, block.children, kept.index_select(-1, block.parents).int())
            kept[..., block.nodes] &= supporters > 0
        return kept

    def augment(self, labels: Tensor) -> Tensor:
        """Add all ancestors of every labelled node (Kiritchenko et al. 2006).

        Args:
            labels: bool ``[..., V]``.

        Returns:
            bool ``[..., V]``, a new tensor.
        """
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
            level = scores[..., block.nodes]
            bound = torch.full_like(level, -torch.inf).masked_fill(block.under_root > 0, torch.inf)
            children = block.children.expand(*level.shape[:-1], -1)
            bound = bound.scatter_reduce(-1, children, bounded.index_select(-1, block.parents), "amax")
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
        rows = [(node,) if node in self.tops else parents for node, parents in enumerate(self.parents)]
        most = max(map(len, rows))
        return torch.tensor([(*row, *row[:1] * (most - len(row))) for row in rows], device=device)

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

    # ---- paths ----

    def encode(self, paths: Sequence[Sequence[str]]) -> list[int]:
        """Return the nodes on label paths, sorted and each once.

        Args:
            paths: label names of each path, from a top node down.

        Raises:
            ValueError: an unknown label, a path that skips a level, or one that is not in the taxonomy.
        """
        nodes: set[int] = set()
        for path in paths:
            above: int | None = None
            for name in path:
                node = self.index.get(name)
                if node is None:  # a name may be written in another Unicode form, as of another operating system
                    node = self._index_of_forms.get(unicodedata.normalize("NFC", name))
                if node is None:
                    # Slow, and of no use, for what is no name at all.
                    near = difflib.get_close_matches(name, self.names, n=1) if len(name) <= _SHOWN else []
                    hint = f" (did you mean {near[0]!r}?)" if near else ""
                    raise ValueError(f"label {shortened(name)!r} is not in the taxonomy{hint}")
                self._check_step(above, node, path)
                nodes.add(node)
                above = node
        return sorted(nodes)

    @cached_property
    def _index_of_forms(self) -> dict[str, int]:
        """Node of each name in Unicode's form NFC; without names that are then equal, which only saved models have."""
        forms = [unicodedata.normalize("NFC", name) for name in self.names]
        counts = Counter(forms)
        return {form: node for node, form in enumerate(forms) if counts[form] == 1}

    def _check_step(self, above: int | None, node: int, path: Sequence[str]) -> None:
        if above in self.parents[node] or (above is None and node in self.tops):
            return
        shown = shortened(" > ".join(path))
        way = self._way_down(above, node)
        if way:
            raise ValueError(
                f"path {shown!r} skips a level above {shortened(self.names[node])!r}; "
                "expected each step to be an edge of the taxonomy, here "
                f"{shortened(' > '.join(self.names[n] for n in way))!r}"
            )
        parents = [self.names[parent] for parent in self.parents[node]] or [ROOT]
        before = ROOT if above is None else self.names[above]
        raise ValueError(
            f"path {shown!r} is not in the taxonomy: no edge from {shortened(before)!r} "
            f"to {shortened(self.names[node])!r}, whose parent is {shortened(' or '.join(map(repr, parents)))}"
        )

    def _way_down(self, above: int | None, node: int) -> list[int]:
        """Return the nodes on a way from ``above`` (None: any top node) down to ``node``, both included; [] if none."""
        below: dict[int, int] = {}  # maps each node that was reached to the next one on its way down
        queue = [node]
        for here in queue:
            for parent in self.parents[here]:
                if parent not in below:
                    below[parent] = here
                    queue.append(parent)
        start = next((n for n in queue if n in self.tops), node) if above is None else above
        if start not in below:
            return []
        way = [start]
        while way[-1] != node:
            way.append(below[way[-1]])
        return way

    def label_paths(self, nodes: Iterable[int]) -> list[list[int]]:
        """Return the longest paths through a set of nodes, each from its highest node down.

        There is one for each way up from a node without a child in the set. In a pruned prediction every path starts
        at a top node.
        """
        selected = set(nodes)
        inner = {parent for node in selected for parent in self.parents[node]}
        paths = []
        stack = [[node] for node in sorted(selected - inner, reverse=True)]
        while stack:
            path = stack.pop()
            above = [parent for parent in self.parents[path[0]] if parent in selected]
            if above:
                stack.extend([parent, *path] for parent in reversed(above))
            else:
                paths.append(path)
        return paths


class _EdgeBlock(NamedTuple):
    """The edges that lead into one level."""

    nodes: slice  # the nodes of the level
    parents: Tensor  # int64 [E], node of each parent
    children: Tensor  # int64 [E], position of each child within its level
    under_root: Tensor  # int32, one a node of the level: 1 where the root is among its parents, possible in a DAG


def _is_edge(edge: object) -> bool:
    return isinstance(edge, list) and len(edge) == 2 and all(isinstance(name, str) for name in edge)


def _level_sizes(levels: Sequence[int]) -> tuple[int, ...]:
    sizes = [0] * max(levels)
    for level in levels:
        sizes[level - 1] += 1
    return tuple(sizes)
