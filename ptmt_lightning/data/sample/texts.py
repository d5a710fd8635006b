"""Documents of the built-in sample, drawn from its grammar."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np

from ptmt_lightning.data.sample.grammar import (
    ADJECTIVES,
    CLOSINGS,
    FAULTS,
    KINDS,
    OFTEN,
    OPENINGS,
    PARTS,
    WHICH,
    Passage,
)

Option = TypeVar("Option")

_KINDS = (0.12, 0.22, 0.28, 0.2, 0.18)  # shares of the kinds of passages
_TWO = 0.6  # probability of a second passage
_ADJECTIVE, _OFTEN, _WHICH, _POLITE = 0.3, 0.3, 0.2, 0.15  # probability of what may be left out


def paths() -> list[tuple[str, ...]]:
    """Return the path of each node of the taxonomy, parents before their children."""
    found: list[tuple[str, ...]] = []
    for device, parts in PARTS.items():
        found.append((device,))
        for part in parts:
            found.append((device, part))
            found += [(device, part, fault) for fault in FAULTS[part]]
    return found


def documents() -> Iterator[dict[str, Any]]:
    """Yield documents with distinct texts without end, the same ones on every machine."""
    draw, seen = _Draw(), set()
    while True:
        document = _document(draw)
        if document["text"] not in seen:
            seen.add(document["text"])
            yield document


class _Draw:
    """Random choices, made of nothing but uniform numbers, which all versions of NumPy draw alike."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def chance(self, probability: float) -> bool:
        return bool(self._rng.random() < probability)

    def one(self, options: Sequence[Option]) -> Option:
        return options[int(self._rng.random() * len(options))]

    def maybe(self, probability: float, options: Sequence[str]) -> list[str]:
        return [self.one(options)] if self.chance(probability) else []

    def weighted(self, options: Sequence[Option], shares: Sequence[float]) -> Option:
        return options[int(np.searchsorted(np.cumsum(shares[:-1]), self._rng.random(), side="right"))]


def _document(draw: _Draw) -> dict[str, Any]:
    """Return one or two passages about different devices, whose paths can't contradict each other."""
    texts: list[str] = []
    labels: list[list[str]] = []
    devices: set[str] = set()
    number = 2 if draw.chance(_TWO) else 1
    while len(texts) < number:
        passage = draw.one(draw.weighted(KINDS, _KINDS))
        names = draw.one(_fillings(passage))
        here = {names[gap] for gap in "de" if gap in names}
        if not here & devices:
            devices |= here
            texts.append(_filled(passage, names, draw))
            labels += [[names[gap] for gap in path] for path in passage.labels.split()]
    text = [*draw.maybe(_POLITE, OPENINGS), *texts, *draw.maybe(_POLITE, CLOSINGS)]
    return {"text": " ".join(text), "labels": labels}


@cache
def _fillings(passage: Passage) -> list[dict[str, str]]:
    """Return all ways to fill the gaps with names, such that the passage's paths are in the taxonomy."""
    found: list[dict[str, str]] = [{}]
    for gaps in f"{passage.labels} {passage.others}".split():
        fitting = [path for path in paths() if len(path) == len(gaps)]
        found = [both for names in found for path in fitting if (both := _joined(names, gaps, path))]
    return found


def _joined(names: dict[str, str], gaps: str, path: tuple[str, ...]) -> dict[str, str] | None:
    """Return the names with those of a path in its gaps; None if they don't go together."""
    both = dict(names)
    for gap, name in zip(gaps, path, strict=True):
        has_no_faults = FAULTS.get(name) == ()
        if both.setdefault(gap, name) != name or (gap == "c") != has_no_faults:
            return None
    return both if len(set(both.values())) == len(both) else None


def _filled(passage: Passage, names: dict[str, str], draw: _Draw) -> str:
    words = {gap: name.lower() for gap, name in names.items()}
    for gap in words:
        if gap in "de":
            words[gap] = " ".join([*draw.maybe(_ADJECTIVE, ADJECTIVES), words[gap]])
        elif gap in "fg":
            words[gap] = words[gap].removesuffix("s")  # the sentence has it where it belongs
    often = "".join(f"{word} " for word in draw.maybe(_OFTEN, OFTEN))
    which = "".join(f", {clause}," for clause in draw.maybe(_WHICH, WHICH))
    return passage.text.format(often=often, which=which, **words).replace(",,", ",")
