"""Random changes of files, by bytes and, of JSON, by structure."""

from __future__ import annotations

import copy
import json
import math
from random import Random
from typing import Any

_BYTES = [
    b"\x00", b"\xff", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\n", b"\r", b"\t", b'"', b"'", b",", b";", b"[",
    b"{", b"}", b"]", b"\\u0000", b"\\ud800", b"\xed\xa0\x80", b"\xc3", b"NaN", b"1e999", b"-", b"=", b"\x1f\x8b",
    b"PK\x03\x04", b"PAR1", "\u202e".encode(), "e\u0301".encode(), "\u2028".encode(), b"9" * 30,
]  # fmt: skip
_ENCODINGS = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252", "utf-7"]
_VALUES: list[Any] = [None, True, False, 0, -1, 1, 2, 1.5, math.nan, math.inf, 1e9, 10**9, 10**12, 10**30, "", "x",
                      "ROOT", "\ud800", "\x00", "1", "../x", [], {}, [[]], [0], {"x": 1}, ["a", "b"]]  # fmt: skip


def mutated_bytes(content: bytes, random: Random) -> bytes:
    """Return content after one to four changes: bytes replaced, removed, inserted, repeated, cut off or recoded."""
    for _ in range(random.randint(1, 4)):
        place = random.randint(0, len(content))
        end = min(len(content), place + random.choice([1, 1, 2, 8, 64]))
        match random.randrange(8):
            case 0:
                content = content[:place] + random.choice(_BYTES) + content[place:]
            case 1:
                content = content[:place] + random.choice(_BYTES) + content[end:]
            case 2:
                content = content[:place] + content[end:]
            case 3:
                content = content[:place] + bytes([random.randrange(256)]) + content[place + 1 :]
            case 4:
                content = content[:end] + content[place:end] * random.choice([1, 2, 100]) + content[end:]
            case 5:
                content = content[:place]
            case 6:
                content = content.decode(errors="ignore").encode(random.choice(_ENCODINGS), errors="ignore")
            case 7:
                content = content[:place] + random.choice(_BYTES) * random.choice([2, 1000, 100_000]) + content[place:]
    return content


def mutated_json(content: bytes, random: Random) -> bytes:
    """Return a JSON file after one to three changes of its values, keys and nesting."""
    tree = {"": json.loads(content)}
    for _ in range(random.randint(1, 3)):
        holder, key = random.choice(_places(tree))
        value = holder[key]
        match random.randrange(7):
            case 0 | 1 | 2:
                holder[key] = copy.deepcopy(random.choice(_VALUES))
            case 3 if key != "":
                del holder[key]
            case 4:
                other, place = random.choice(_places(tree))
                holder[key] = copy.deepcopy(other[place])
            case 5 if isinstance(value, (list, str)):
                holder[key] = value * random.choice([0, 2, 50])
            case _:
                for _ in range(random.choice([1, 2, 300])):
                    value = [value]
                holder[key] = value
    return json.dumps(tree[""]).encode()


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Return all values of a tree as pairs of what holds them and their key; those near the root are taken oftener."""
    found: list[tuple[Any, Any]] = []
    level: list[Any] = [tree]
    for depth in range(6):
        pairs = [
            (holder, key) for holder in level for key in (holder if isinstance(holder, dict) else range(len(holder)))
        ]
        found += pairs * (4 if depth in (1, 2) and len(pairs) < 200 else 1)
        level = [holder[key] for holder, key in pairs if isinstance(holder[key], (dict, list))]
    return found
