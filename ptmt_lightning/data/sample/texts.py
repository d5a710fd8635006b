from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from ptmt_lightning.data.sample.grammar import ADJECTIVES, CATALOGUE, CLOSINGS, KINDS, OFTEN, OPENINGS, WHICH, Passage

Path = tuple[str, ...]
Binding = dict[str, str]
_LEVELS = ("de", "pq", "fg")

_SHARES = (0.25, 0.2, 0.2, 0.17, 0.18)
_ADJECTIVE, _OFTEN, _WHICH = 0.3, 0.3, 0.3
_TWO = 0.5
_POLITE = 0.3

def paths():
    for device, parts in CATALOGUE.items():
        yield (device,)
        for part, faults in parts.items():
            yield (device, part)
            for fault in faults:
                yield (device, part, fault)

PATHS = list(paths())

class Draw:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
    def chance(self, p):
        return self.rng.random() < p
    def one(self, options):
        return options[int(self.rng.random() * len(options))]

@cache
def bindings(passage: Passage) -> list[Binding]:
    found: list[Binding] = [{}]
    for gaps in [*passage.labels.split(), *passage.fine.split()]:
        found = [both for binding in found for path in PATHS if len(path) == len(gaps) and (both := join(binding, gaps, path))]
    return found

def join(binding, gaps, path):
    both = dict(binding)
    for gap, name in zip(gaps, path, strict=True):
        if both.setdefault(gap, name) != name:
            return None
    for level in _LEVELS:
        a, b = level
        if a in both and both[a] == both.get(b):
            return None
    return both

def document(draw: Draw):
    texts, labels, devices = [], [], []
    number = 1 + draw.chance(_TWO)
    while len(texts) < number:
        r = draw.rng.random()
        kind = 0
        while r > _SHARES[kind] and kind < len(KINDS) - 1:
            r -= _SHARES[kind]
            kind += 1
        passage = draw.one(KINDS[kind])
        binding = draw.one(bindings(passage))
        mine = [binding[x] for x in "de" if x in binding]
        if any(d in devices for d in mine):
            continue
        devices += mine
        words = {gap: name.lower() for gap, name in binding.items()}
        for gap in "de":
            if gap in words and draw.chance(_ADJECTIVE):
                words[gap] = f"{draw.one(ADJECTIVES)} {words[gap]}"
        words["often"] = f"{draw.one(OFTEN)} " if draw.chance(_OFTEN) else ""
        words["which"] = f", {draw.one(WHICH)}," if draw.chance(_WHICH) else ""
        for gap in "fg":
            if gap in words:
                words[gap] = words[gap][:-1]
        texts.append(passage.text.format(**words).replace(",,", ","))
        labels += [[binding[gap] for gap in gaps] for gaps in passage.labels.split()]
    if draw.chance(_POLITE):
        texts.insert(0, draw.one(OPENINGS))
    if draw.chance(_POLITE):
        texts.append(draw.one(CLOSINGS))
    return {"text": " ".join(texts), "labels": labels}
