"""Small raw files of RCV1-v2 and the New York Times."""

from __future__ import annotations

import json
from collections.abc import Sequence

RCV1_HIERARCHY = (
    "parent: None        child: Root         child-description: Root\n"
    "parent: Root        child: CCAT         child-description: CORPORATE/INDUSTRIAL\n"
    "parent: Root        child: MCAT         child-description: MARKETS\n"
    "parent: CCAT        child: C15          child-description: PERFORMANCE\n"
    "parent: C15         child: C151         child-description: ACCOUNTS/EARNINGS\n"
    "parent: C151        child: C1511        child-description: ANNUAL RESULTS\n"
    "parent: MCAT        child: M11          child-description: EQUITY MARKETS\n"
)
RCV1_TOPICS = [["C1511", "C151", "C15", "CCAT"], ["M11", "MCAT", "CCAT"], ["C15", "MCAT"]]  # in turn
RCV1_PATHS = [[["CCAT", "C15", "C151", "C1511"]], [["CCAT"], ["MCAT", "M11"]], [["MCAT"], ["CCAT", "C15"]]]


def rcv1_story(number: int) -> str:
    """A story as the token files have it, on two lines."""
    return f".I {number}\n.W\nstem{number} market\nprofit rose\n\n"


def rcv1_files(train: int = 20, tests: int = 2) -> dict[str, str | bytes]:
    """The token files: so many stories in the training file, so many in each of the four test files."""
    counts = {"train": train} | {f"test_pt{part}": tests for part in range(4)}
    numbers = iter(range(2286, 10_000))
    stories = {part: [next(numbers) for _ in range(count)] for part, count in counts.items()}
    files: dict[str, str | bytes] = {
        f"lyrl2004_tokens_{part}.dat": "".join(map(rcv1_story, chosen)) for part, chosen in stories.items()
    }
    all_of_them = [number for chosen in stories.values() for number in chosen]
    files["rcv1-v2.topics.qrels"] = "".join(f"{t} {n} 1\n" for n in all_of_them for t in RCV1_TOPICS[n % 3])
    return files | {"rcv1.topics.hier.orig": RCV1_HIERARCHY}


NYT_TAXONOMY = "Root\tTop/News\tTop/Opinion\nTop/News\tTop/News/Sports\nTop/News/Sports\tTop/News/Sports/Golf\n"


def topic_files(name: str, taxonomy: str, labels: Sequence[Sequence[str]]) -> dict[str, str]:
    """HGCLR's JSON files: words as a list, topics in turn; six documents for training, three for each other split."""
    files = {f"{name}.taxonomy": taxonomy}
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        lines = [
            json.dumps({"token": ["Article", str(i), "of", split], "label": labels[i % len(labels)]})
            for i in range(count)
        ]
        files[f"{name}_{split}.json"] = "\n".join(lines)
    return files


NYT_LABELS = [["Top/News", "Top/News/Sports"], ["Top/Opinion", "Top/News/Sports/Golf"]]
