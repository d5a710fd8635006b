"""The edges of a taxonomy: what is wrong with them, and the levels that they give."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ptmt_lightning.utils.checks import shortened

ROOT = "ROOT"


def check_edges(edges: Sequence[tuple[str, str]], source: str) -> dict[tuple[str, str], int]:
    """Refuse an empty list and duplicate edges; return the line number of each edge."""
    if not edges:
        raise ValueError(f"{source}: no edges; expected at least one, top nodes under {ROOT}")
    line_of: dict[tuple[str, str], int] = {}
    for number, edge in enumerate(edges, start=1):
        if edge in line_of:
            raise ValueError(
                f"{source}:{number}: duplicate edge {shortened(edge[0])!r} -> {shortened(edge[1])!r}, "
                f"first on line {line_of[edge]}; delete one of the two, or rename one that is another node"
            )
        line_of[edge] = number
    return line_of


def longest_path_levels(
    edges: Sequence[tuple[str, str]], line_of: Mapping[tuple[str, str], int], source: str
) -> dict[str, int]:
    """Return the level of each name by Kahn's algorithm, in the order in which names first occur as a child.

    Raises:
        ValueError: a cycle, or a node with no way to the root.
    """
    children: dict[str, list[str]] = defaultdict(list)
    num_open_parents: dict[str, int] = defaultdict(int)
    for parent, child in edges:
        children[parent].append(child)
        num_open_parents[child] += 1
    for parent, child in edges:
        if parent != ROOT and parent not in num_open_parents:
            raise ValueError(
                f"{source}:{line_of[parent, child]}: {shortened(parent)!r} has no way to the root; "
                f"add an edge from its parent, or '{ROOT}<TAB>{shortened(parent)}' if it is a top node"
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
        if len(cycle) == 2:
            raise ValueError(
                f"{source}:{closing}: cycle {shortened(' -> '.join(cycle))}: names identify nodes, so that a child "
                f"needs another name than its parent, such as '{shortened(cycle[0])} (other)'; rename it, "
                "in the data, too, or give whole paths, one a line under the header 'level1<TAB>level2<TAB>...'"
            )
        raise ValueError(f"{source}:{closing}: cycle {shortened(' -> '.join(cycle))}; delete one of these edges")
    return level


def _find_cycle(edges: Sequence[tuple[str, str]], stuck: set[str]) -> list[str]:
    """Return a cycle among the nodes that Kahn's algorithm could not order, its first name repeated at the end.

    Every such node has a parent among them, so a walk from child to parent must come back to a node.
    """
    parent_of = {child: parent for parent, child in edges if child in stuck and parent in stuck}
    walk = [next(iter(parent_of))]
    while walk[-1] not in walk[:-1]:
        walk.append(parent_of[walk[-1]])
    return walk[walk.index(walk[-1]) :][::-1]
