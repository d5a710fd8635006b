"""The taxonomy: a rooted tree or DAG of labels, and the array work over it.

Shape legend: ``B`` documents, ``V`` nodes (the root is not one of them), ``E`` edges.
"""

from __future__ import annotations

import difflib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

ROOT = "ROOT"


class Taxonomy:
    """Nodes ordered by level, so that the nodes of one level are one contiguous slice.

    The level of a node is the length of its longest path from the root (top nodes have level 1);
    in a tree that is its depth, in a DAG it puts every parent on a level above all of its children.
    Memory is linear in nodes and edges.

    Args:
        edges: ``(parent, child)`` names in file order; top nodes hang under ``ROOT``.
        source: what error messages call the origin of the edges; entry ``i`` is its line ``i + 1``.

    Raises:
        ValueError: no edges, a duplicate edge, a cycle, or a node with no way to the root.
    """

    def __init__(self, edges: Iterable[tuple[str, str]], *, source: str = "edges") -> None:
        self.edges = tuple(edges)
        line_of = _check_edges(self.edges, source)
        level_of_name = _longest_path_levels(self.edges, line_of, source)
        # sorted() is stable: within a level the nodes keep the order in which the file names them.
        self.names: tuple[str, ...] = tuple(sorted(level_of_name, key=level_of_name.__getitem__))
        self.index: Mapping[str, int] = {name: node for node, name in enumerate(self.names)}
        self.level_sizes: tuple[int, ...] = _level_sizes([level_of_name[name] for name in self.names])
        self.parents: tuple[tuple[int, ...], ...] = self._parents()
        self.tops = frozenset(self.index[child] for parent, child in self.edges if parent == ROOT)
        self._edge_blocks: dict[torch.device, list[_EdgeBlock]] = {}

    @classmethod
    def from_tsv(cls, path: Path | str) -> Taxonomy:
        """Read one ``parent<TAB>child`` edge a line (UTF-8; blank lines are ignored only at the end)."""
        path = Path(path)
        try:
            lines = path.read_text(encoding="utf-8-sig").rstrip().split("\n")
        except FileNotFoundError:
            raise ValueError(
                f"{path}: no such file; expected the taxonomy as one 'parent<TAB>child' edge a line"
            ) from None
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: invalid UTF-8 at byte {error.start}; save the file as UTF-8") from None
        if lines == [""]:
            raise ValueError(
                f"{path}: the file is empty; expected one 'parent<TAB>child' edge a line, top nodes under {ROOT}"
            )
        edges = []
        for number, line in enumerate(lines, start=1):
            fields = [field.strip() for field in line.split("\t")]
            if len(fields) != 2 or not all(fields):
                raise ValueError(f"{path}:{number}: expected 'parent<TAB>child', got {line!r}")
            edges.append((fields[0], fields[1]))
        return cls(edges, source=str(path))

    @classmethod
    def from_json(cls, path: Path | str) -> Taxonomy:
        """Read what :meth:`to_json` wrote; the node order is the same."""
        edges = json.loads(Path(path).read_text(encoding="utf-8"))["edges"]
        return cls([(parent, child) for parent, child in edges], source=str(path))

    def to_json(self, path: Path | str) -> None:
        """Write the edges as JSON."""
        Path(path).write_text(json.dumps({"root": ROOT, "edges": self.edges}, ensure_ascii=False), encoding="utf-8")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def num_levels(self) -> int:
        return len(self.level_sizes)

    @cached_property
    def level_slices(self) -> tuple[slice, ...]:
        """The slice of nodes of each level."""
        slices, start = [], 0
        for size in self.level_sizes:
            slices.append(slice(start, start + size))
            start += size
        return tuple(slices)

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """The level (1 = top) of each node."""
        return tuple(level for level, size in enumerate(self.level_sizes, start=1) for _ in range(size))

    def _parents(self) -> tuple[tuple[int, ...], ...]:
        parents: list[list[int]] = [[] for _ in self.names]
        for parent, child in self.edges:
            if parent != ROOT:
                parents[self.index[child]].append(self.index[parent])
        return tuple(tuple(nodes) for nodes in parents)

    def edge_index(self) -> Tensor:
        """int64 ``[2, E]``: parents and children of the edges between nodes, those from the root left out."""
        pairs = [(parent, node) for node, parents in enumerate(self.parents) for parent in parents]
        return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T.contiguous()

    # ---- array work: a loop over levels, never over nodes or documents ----

    def prune(self, predicted: Tensor) -> Tensor:
        """Drop every node below level 1 none of whose parents survived, top-down (section 2.3).

        Args:
            predicted: bool ``[..., V]``.

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
        """Add all ancestors of every node, bottom-up (Kiritchenko et al. 2006).

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
        """Lower every node below level 1 to its highest parent, top-down.

        No child is then above its parents, and exceeding a threshold means what pruning leaves of it:
        ``coherent(p) > t`` is ``prune(p > t)`` for every ``t``.

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
        """Raise every node to its highest descendant, bottom-up.

        ``raised(p) > t`` is ``augment(p > t)`` for every ``t``. In a tree it changes nothing of coherent scores.

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

    def _blocks(self, device: torch.device) -> list[_EdgeBlock]:
        """The edges grouped by the level they lead into, from level 2 down, made once a device."""
        if device not in self._edge_blocks:
            with torch.inference_mode(False):  # they may be needed in training, later
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
        """Nodes on the given label paths, each path from a top node down, sorted.

        Raises:
            ValueError: an unknown label, a path that skips a level, or one that is not in the taxonomy.
        """
        nodes: set[int] = set()
        for path in paths:
            above: int | None = None
            for name in path:
                node = self.index.get(name)
                if node is None:
                    near = difflib.get_close_matches(name, self.names, n=1)
                    hint = f" (did you mean {near[0]!r}?)" if near else ""
                    raise ValueError(f"label {name!r} is not in the taxonomy{hint}")
                self._check_step(above, node, path)
                nodes.add(node)
                above = node
        return sorted(nodes)

    def _check_step(self, above: int | None, node: int, path: Sequence[str]) -> None:
        if above in self.parents[node] or (above is None and node in self.tops):
            return
        shown = " > ".join(path)
        way = self._way_down(above, node)
        if way:
            raise ValueError(
                f"path {shown!r} skips a level above {self.names[node]!r}; "
                f"expected each step to be an edge of the taxonomy, here {' > '.join(self.names[n] for n in way)!r}"
            )
        parents = [self.names[parent] for parent in self.parents[node]] or [ROOT]
        before = ROOT if above is None else self.names[above]
        raise ValueError(
            f"path {shown!r} is not in the taxonomy: no edge from {before!r} to {self.names[node]!r}, "
            f"whose parent is {' or '.join(map(repr, parents))}"
        )

    def _way_down(self, above: int | None, node: int) -> list[int]:
        """Nodes on a way from ``above`` (None: any top node) down to ``node``, both included; or none."""
        below: dict[int, int] = {}  # on the way down from each node seen, the next one
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
        """The maximal paths through a set of nodes: one for each way from a node with no selected child upwards.

        In a pruned prediction every path starts at a top node.
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
    """The edges into one level."""

    nodes: slice  # of the level
    parents: Tensor  # [E] nodes
    children: Tensor  # [E] positions within the level
    under_root: Tensor  # int32, one a node of the level: 1 where the root itself is a parent (a DAG's short cut)


def _check_edges(edges: Sequence[tuple[str, str]], source: str) -> dict[tuple[str, str], int]:
    """Refuse an empty list and duplicate edges; give the line of each edge."""
    if not edges:
        raise ValueError(f"{source}: no edges; expected at least one, top nodes under {ROOT}")
    line_of: dict[tuple[str, str], int] = {}
    for number, edge in enumerate(edges, start=1):
        if edge in line_of:
            raise ValueError(
                f"{source}:{number}: duplicate edge {edge[0]!r} -> {edge[1]!r}, first on line {line_of[edge]}; "
                "delete one of the two"
            )
        line_of[edge] = number
    return line_of


def _longest_path_levels(
    edges: Sequence[tuple[str, str]], line_of: Mapping[tuple[str, str], int], source: str
) -> dict[str, int]:
    """Level of each node by Kahn's algorithm, names in the order in which they first occur as a child."""
    children: dict[str, list[str]] = defaultdict(list)
    num_open_parents: dict[str, int] = defaultdict(int)
    for parent, child in edges:
        children[parent].append(child)
        num_open_parents[child] += 1
    for parent, child in edges:
        if parent != ROOT and parent not in num_open_parents:
            raise ValueError(
                f"{source}:{line_of[parent, child]}: {parent!r} has no way to the root; "
                f"add an edge from its parent, or '{ROOT}<TAB>{parent}' if it is a top node"
            )
    if ROOT not in children:
        raise ValueError(f"{source}: no edge starts at {ROOT}; add '{ROOT}<TAB>NAME' for each top node")
    level = dict.fromkeys(num_open_parents, 0)
    level[ROOT] = 0
    ready = [] if ROOT in num_open_parents else [ROOT]
    while ready:
        parent = ready.pop()
        for child in children[parent]:
            level[child] = max(level[child], level[parent] + 1)
            num_open_parents[child] -= 1
            if not num_open_parents[child]:
                ready.append(child)
    del level[ROOT]
    stuck = {name for name, count in num_open_parents.items() if count}
    if stuck:
        cycle = _find_cycle(edges, stuck)
        closing = line_of[cycle[-2], cycle[-1]]
        raise ValueError(f"{source}:{closing}: cycle {' -> '.join(cycle)}; delete one of these edges")
    return level


def _find_cycle(edges: Sequence[tuple[str, str]], stuck: set[str]) -> list[str]:
    """A cycle among the nodes that Kahn's algorithm never freed, walked against the edges and turned round."""
    parent_of = {child: parent for parent, child in edges if child in stuck and parent in stuck}
    walk = [next(iter(parent_of))]
    while walk[-1] not in walk[:-1]:
        walk.append(parent_of[walk[-1]])
    return walk[walk.index(walk[-1]) :][::-1]


def _level_sizes(levels: Sequence[int]) -> tuple[int, ...]:
    sizes = [0] * max(levels)
    for level in levels:
        sizes[level - 1] += 1
    return tuple(sizes)
