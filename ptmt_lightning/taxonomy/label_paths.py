"""Nodes by the label paths that lead to them, and what is wrong with a path that leads to none."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from unicodedata import normalize

from ptmt_lightning.taxonomy.edges import ROOT
from ptmt_lightning.taxonomy.files import STEP
from ptmt_lightning.utils.checks import shortened

_SHOWN = 200  # characters of a name for which similar ones are looked up


class LabelPaths:
    """Nodes by label paths: the base of :class:`~ptmt_lightning.taxonomy.Taxonomy`, which sets the attributes."""

    edges: tuple[tuple[str, str], ...]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    index: Mapping[str, int]
    parents: tuple[tuple[int, ...], ...]
    tops: frozenset[int]

    def check_labels(self, labels: Mapping[str, str], source: str) -> None:
        """Refuse labels of names that there are not, and a label that two children of one parent share."""
        unknown = sorted(labels.keys() - self.index.keys())
        if unknown:
            raise ValueError(f"{source}: a label of {shortened(unknown[0])!r}, which no edge names; remove it")
        if not labels:  # names are unique
            return
        seen: set[tuple[str, str]] = set()
        for parent, child in self.edges:
            step = parent, self.labels[self.index[child]]
            if step in seen:
                raise ValueError(f"{source}: two labels {shortened(step[1])!r} below {shortened(parent)!r}; rename one")
            seen.add(step)

    def encode(self, paths: Sequence[Sequence[str]]) -> list[int]:
        """Return the nodes on label paths, sorted and each once.

        Args:
            paths: labels of each path, from a top node down, in any Unicode form; names do, too.

        Raises:
            ValueError: an unknown label, a path that skips a level, or one that is not in the taxonomy.
        """
        nodes: set[int] = set()
        for path in paths:
            above: int | None = None
            for name in path:
                node = self._step(above, name)
                if node is None:
                    candidates = self._nodes_called.get(normalize("NFC", name), ())
                    raise ValueError(_why_no_step(self, path, name, above, candidates))
                nodes.add(node)
                above = node
        return sorted(nodes)

    def _step(self, above: int | None, name: str) -> int | None:
        """Return the node below another one (None: the root) that has a label or, if none has, a name."""
        for form in (name, normalize("NFC", name)):
            for called in (self._below, self._below_by_name):
                if (node := called.get((above, form))) is not None:
                    return node
        return None

    @cached_property
    def _below(self) -> dict[tuple[int | None, str], int]:
        return self._steps(self.labels)

    @cached_property
    def _below_by_name(self) -> dict[tuple[int | None, str], int]:
        return self._steps(self.names) if self.labels != self.names else {}

    def _steps(self, words: Sequence[str]) -> dict[tuple[int | None, str], int]:
        """Return the child of each node that is called by a word, as it is written and in Unicode's form NFC."""
        steps = [(None if p == ROOT else self.index[p], self.index[child]) for p, child in self.edges]
        # What saved models tell apart by Unicode's forms alone stays apart: words as they are written win.
        in_nfc = {(above, normalize("NFC", words[node])): node for above, node in reversed(steps)}
        return in_nfc | {(above, words[node]): node for above, node in steps}

    @cached_property
    def _nodes_called(self) -> dict[str, tuple[int, ...]]:
        """Nodes of each label and name, in form NFC."""
        nodes: dict[str, dict[int, None]] = defaultdict(dict)
        for words in (self.labels, self.names):
            for node, word in enumerate(words):
                nodes[normalize("NFC", word)][node] = None
        return {word: tuple(found) for word, found in nodes.items()}

    def path_to(self, node: int) -> list[int]:
        """Return the nodes from a top node down to a node, both included; in a DAG, by the first parent of each."""
        path = [node]
        while path[0] not in self.tops:
            path.insert(0, self.parents[path[0]][0])
        return path

    def nodes_in(self, other: LabelPaths) -> list[int | None]:
        """Return for each node the node of another hierarchy to which one of its label paths leads; None without one.

        In a DAG, the path by the first parent that has one counts.
        """
        found: list[int | None] = []
        for node, label in enumerate(self.labels):  # parents come before their children
            above = [found[parent] for parent in self.parents[node]]
            places = [other._step(place, label) for place in above if place is not None]
            if node in self.tops:
                places.append(other._step(None, label))
            found.append(next((place for place in places if place is not None), None))
        return found

    def words(self) -> list[str]:
        """Return the words of each node: its label, or those of its whole path where others share the label."""
        return [
            label if label == self.names[node] else " | ".join(self.labels[n] for n in self.path_to(node))
            for node, label in enumerate(self.labels)
        ]

    def path_names(self, path: Sequence[int]) -> list[str]:
        """Return what people see of a path down the taxonomy: the labels on it.

        Of a path that begins below the top, the first node is called by its name, so that it can be told which it is.
        """
        return [self.names[node] if place == 0 else self.labels[node] for place, node in enumerate(path)]

    def path_nodes(self, names: Sequence[str]) -> list[int]:
        """Return the nodes of a path, given what :meth:`path_names` returned.

        Raises:
            KeyError: there is no such path.
        """
        nodes: list[int] = []
        for name in names:
            nodes.append(self._below[nodes[-1], name] if nodes else self.index[name])
        return nodes

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


def _why_no_step(
    taxonomy: LabelPaths, path: Sequence[str], name: str, above: int | None, candidates: Sequence[int]
) -> str:
    """Return why a path can't go on with a name, in words that show what the taxonomy has instead.

    Args:
        taxonomy: the hierarchy.
        path: the whole path.
        name: the name in question.
        above: the node to which the path has led so far; None at the root.
        candidates: all nodes that the name may mean; none of them is below ``above``.
    """
    if not candidates:
        # Slow, and of no use, for what is no name at all.
        near = difflib.get_close_matches(name, taxonomy.labels, n=1) if len(name) <= _SHOWN else []
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return f"label {shortened(name)!r} is not in the taxonomy{hint}"
    shown = shortened(STEP.join(path))
    for node in candidates:
        if way := _way_down(taxonomy, above, node):
            return (
                f"path {shown!r} skips a level above {shortened(name)!r}; expected each step to be an edge of the "
                f"taxonomy, here {shortened(STEP.join(taxonomy.path_names(way)))!r}"
            )
    parents = [taxonomy.names[parent] for node in candidates for parent in taxonomy.parents[node]]
    if any(node in taxonomy.tops for node in candidates) and (len(candidates) > 1 or not parents):
        parents.append(ROOT)
    before = ROOT if above is None else taxonomy.names[above]
    return (
        f"path {shown!r} is not in the taxonomy: no edge from {shortened(before)!r} "
        f"to {shortened(name)!r}, whose parent is {shortened(' or '.join(map(repr, parents)))}"
    )


def _way_down(taxonomy: LabelPaths, above: int | None, node: int) -> list[int]:
    """Return the nodes on a way from ``above`` (None: any top node) down to ``node``, both included; [] if none."""
    below: dict[int, int] = {}  # maps each node that was reached to the next one on its way down
    queue = [node]
    for here in queue:
        for parent in taxonomy.parents[here]:
            if parent not in below:
                below[parent] = here
                queue.append(parent)
    start = next((n for n in queue if n in taxonomy.tops), node) if above is None else above
    if start not in below:
        return []
    way = [start]
    while way[-1] != node:
        way.append(below[way[-1]])
    return way
