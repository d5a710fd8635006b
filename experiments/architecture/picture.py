"""The rooms of the package as a picture: ``python experiments/architecture/picture.py > rooms.svg``.

A line goes down from a room to one that it imports. Lines that follow from others are left out: where ``a`` imports
``b`` and ``b`` imports ``c``, one from ``a`` to ``c`` would say nothing about which room may use which.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from imports import PACKAGE, Arrows, floors, room_imports

WIDTH, ROW, BOX_HEIGHT, LETTER = 900, 74, 30, 8.2
STYLE = (
    "rect{fill:#e8eefc;stroke:#3f51b5}path{fill:none;stroke:#7986cb}"
    "text{font:14px sans-serif;text-anchor:middle;fill:#1a237e}"
)


def main() -> None:
    """Print the picture of this checkout's rooms as SVG."""
    print(draw(room_imports(Path(__file__).parents[2] / PACKAGE)))


def draw(arrows: Arrows) -> str:
    """Return the rooms floor by floor, the lowest at the bottom, with what each imports, as SVG.

    Args:
        arrows: for each room, the rooms that it imports.

    Raises:
        CycleError: rooms import each other in a circle.
    """
    rows = floors(arrows)
    lines = needed(arrows)
    middle: dict[str, float] = {}
    for rooms in rows:  # from the bottom: a room stands above what it imports, as far as there is space
        rooms.sort(key=lambda room: (_mean([middle[below] for below in lines[room]]), room))
        space = WIDTH / len(rooms)
        middle |= {room: (index + 0.5) * space for index, room in enumerate(rooms)}
    top = {room: (len(rows) - 1 - floor) * ROW + 10 for floor, rooms in enumerate(rows) for room in rooms}
    shapes = [_line(middle[a], top[a] + BOX_HEIGHT, middle[b], top[b]) for a in sorted(lines) for b in sorted(lines[a])]
    shapes += [_box(room, middle[room], top[room]) for room in sorted(middle)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {len(rows) * ROW}">'
    title = "<title>Rooms of the package: lines go down to what a room imports</title>"
    return f"{head}{title}<style>{STYLE}</style>{''.join(shapes)}</svg>"


def needed(arrows: Arrows) -> Arrows:
    """Return the arrows without those that follow from two or more others."""
    below: Arrows = {}
    for room in chain(*floors(arrows)):
        below[room] = {far for near in arrows.get(room, ()) for far in {near, *below[near]}}
    return {
        room: {near for near in arrows.get(room, ()) if not any(near in below[other] for other in arrows[room])}
        for room in below
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else WIDTH / 2


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    half = (y1 + y2) / 2
    return f'<path d="M{x1:.0f} {y1:.0f}C{x1:.0f} {half:.0f} {x2:.0f} {half:.0f} {x2:.0f} {y2:.0f}"/>'


def _box(name: str, x: float, y: float) -> str:
    width = LETTER * len(name) + 20
    return (
        f'<rect x="{x - width / 2:.0f}" y="{y:.0f}" width="{width:.0f}" height="{BOX_HEIGHT}" rx="6"/>'
        f'<text x="{x:.0f}" y="{y + BOX_HEIGHT / 2 + 5:.0f}">{name}</text>'
    )


if __name__ == "__main__":
    main()
