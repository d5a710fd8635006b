"""The structure of the package, by imports: ``python experiments/architecture/imports.py``.

A room is a folder of ``ptmt_lightning``, or a module at its root. An arrow goes from a room to one that it imports,
be it at the top of a module or within a function. A room's floor is one above the highest room that it imports.
``--folder`` reads another checkout, ``--dot`` writes the arrows for Graphviz.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = "ptmt_lightning"
Arrows = dict[str, set[str]]  # for each room, the rooms that it imports


def main() -> None:
    """Print the numbers of modules, rooms, arrows and floors, or the arrows for Graphviz."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[2], help="of a checkout (default: this)")
    parser.add_argument("--dot", action="store_true", help="write a graph for Graphviz")
    options = parser.parse_args()
    root = options.folder / PACKAGE
    arrows = room_imports(root)
    if options.dot:
        print("\n".join(["digraph {", *(f'  "{a}" -> "{b}"' for a in sorted(arrows) for b in sorted(arrows[a])), "}"]))
        return
    files = sorted(root.rglob("*.py"))
    lengths = {str(path.relative_to(root)): len(path.read_text().splitlines()) for path in files}
    longest = max(lengths, key=lengths.__getitem__)
    print(f"modules: {len(files)}, at the root: {len(list(root.glob('*.py')))}")
    print(f"longest file: {longest}, {lengths[longest]} lines")
    print(f"rooms: {len(arrows)}, import arrows between them: {sum(map(len, arrows.values()))}")
    try:
        by_floor = floors(arrows)
    except CycleError as error:
        print(f"circle: {' -> '.join(error.args[1])}")
        return
    print(f"floors: {len(by_floor)}")
    for number, rooms in reversed(list(enumerate(by_floor, start=1))):
        print(f"  {number}: {', '.join(rooms)}")


def room_imports(root: Path) -> Arrows:
    """Return the rooms that each room imports.

    Args:
        root: folder of the package.
    """
    arrows: Arrows = {}
    for path in sorted(root.rglob("*.py")):
        room = _room(path.relative_to(root).with_suffix("").parts)
        if room is not None:
            found = {_room(parts) for parts in _imported(path, root)}
            arrows.setdefault(room, set()).update(other for other in found if other not in (None, room))
    return arrows


def floors(arrows: Arrows) -> list[list[str]]:
    """Return the rooms on each floor, the lowest floor first.

    Raises:
        CycleError: rooms import each other in a circle.
    """
    floor: dict[str, int] = {}
    for room in TopologicalSorter(arrows).static_order():
        floor[room] = 1 + max((floor[below] for below in arrows.get(room, ())), default=0)
    return [sorted(room for room in floor if floor[room] == number) for number in range(1, max(floor.values()) + 1)]


def _room(parts: tuple[str, ...]) -> str | None:
    """Return the room of a module, by the parts of its path; None for the package itself, which is in no room."""
    return None if not parts or parts == ("__init__",) else parts[0]


def _imported(path: Path, root: Path) -> Iterator[tuple[str, ...]]:
    """Yield the path of each import of a module within the package, in parts."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            is_package = node.module == PACKAGE
            names = [f"{node.module}.{alias.name}" for alias in node.names] if is_package else [node.module]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == PACKAGE and rest and (root / rest[0]).with_suffix(".py").exists() | (root / rest[0]).is_dir():
                yield tuple(rest)


if __name__ == "__main__":
    main()
