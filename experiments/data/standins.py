"""Makes full-size stand-ins for the raw files of the four benchmarks, with invented texts.

They have the form of the official files, the real taxonomies, and the counts of Table 2.

    python experiments/data/standins.py FOLDER --taxonomies TAXONOMIES [NAME ...]

The folder TAXONOMIES holds ``{wos,bugs,amazon}.tsv``, one edge ``parent<TAB>child`` a line; for BGC it holds
``bgc_official_hierarchy.txt``, the official ``hierarchy.txt``, and ``bgc.tsv``, the part of it that occurs in
documents. Each raw file is written to ``FOLDER/NAME/raw``.
"""

from __future__ import annotations

import argparse
import csv
import html
import io
import itertools
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openpyxl

from ptmt_lightning.data.benchmarks.prepared import node_name
from ptmt_lightning.taxonomy import Taxonomy


class Texts:
    """An endless source of invented texts, which are pieces of a long random one.

    Args:
        mean_characters: mean length of a text, in characters.
        seed: decides the texts.
    """

    def __init__(self, mean_characters: int, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        syllables = np.array([c + v for c in "bdfgklmnprstvz" for v in "aeiou"])
        words = ["".join(self.rng.choice(syllables, size)) for size in self.rng.integers(1, 4, 5000)]
        self.corpus = " ".join(self.rng.choice(words, 1_000_000))
        self.mean = mean_characters
        self.numbers = itertools.count()  # a number in each report keeps two reports from being equal

    def take(self, minimum: int = 40) -> str:
        """Return a new text; lengths are log-normally distributed around the mean.

        Args:
            minimum: least length, in characters.
        """
        length = max(minimum, round(self.rng.lognormal(np.log(self.mean) - 0.18, 0.6)))
        start = int(self.rng.integers(len(self.corpus) - length))
        return self.corpus[start : start + length].strip()


def main() -> None:
    """Write the raw files of the chosen benchmarks, and print their folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(WRITERS)} (default: all)")
    parser.add_argument("--taxonomies", type=Path, required=True)
    parser.add_argument("--mean-characters", type=int, help="shorter texts for a quick look (default: Table 2's)")
    options = parser.parse_intermixed_args()
    for name in options.names or WRITERS:
        raw = options.folder / name / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        write, mean_characters = WRITERS[name]
        write(raw, options.taxonomies, Texts(options.mean_characters or mean_characters))
        print(raw)


def spread(leaves: list[str], total: int, texts: Texts, fewest: int) -> list[str]:
    """Draw labels unevenly, as in real data, and return them in random order.

    Args:
        leaves: the labels to draw from.
        total: number of labels to return.
        texts: gives the random numbers.
        fewest: least number of times that each label occurs.
    """
    weights = texts.rng.pareto(1.5, len(leaves)) + 0.2
    drawn = texts.rng.choice(leaves, size=total - fewest * len(leaves), p=weights / weights.sum())
    labels = [*(leaf for leaf in leaves for _ in range(fewest)), *drawn.tolist()]
    texts.rng.shuffle(labels)
    return labels


def write_wos(raw: Path, taxonomies: Path, texts: Texts) -> None:
    """Write a stand-in for Web of Science.

    It has 46,985 rows, 25 of them in seven areas that are too rare to be kept, and stray spaces around names.

    Args:
        raw: folder to write to.
        taxonomies: folder of the taxonomies.
        texts: source of the texts.
    """
    taxonomy = Taxonomy.from_tsv(taxonomies / "wos.tsv")
    rare = [f"CS_Rare-{number}" for number in "abcdefg" for _ in range(4)][:25]
    labels = spread(list(taxonomy.names[taxonomy.level_slices[1]]), 46_960, texts, fewest=10) + rare
    texts.rng.shuffle(labels)
    workbook = openpyxl.Workbook(write_only=True)
    sheet = workbook.create_sheet()
    sheet.append(["Y1", "Y2", "Y", "Domain", "area", "keywords", "Abstract"])
    for label in labels:
        domain, area = label.split("_")
        sheet.append([0, 0, 0, f"{domain} ", f" {area.replace('-', ' ')}  ", "", f" {texts.take()} "])
    content = io.BytesIO()
    workbook.save(content)
    with zipfile.ZipFile(raw / "WebOfScience.zip", "w") as archive:
        archive.writestr("Meta-data/Data.xlsx", content.getvalue())
        for name in ("X.txt", "Y.txt", "YL1.txt", "YL2.txt"):
            archive.writestr(f"WOS5736/{name}", "")


def write_bgc(raw: Path, taxonomies: Path, texts: Texts) -> None:
    """Write a stand-in for the Blurb Genre Collection.

    It has three files of pseudo-XML with bare ampersands. A book has one to three branches of the taxonomy; its topics
    on each level come in no order.

    Args:
        raw: folder to write to.
        taxonomies: folder of the taxonomies.
        texts: source of the texts.
    """
    hierarchy = (taxonomies / "bgc_official_hierarchy.txt").read_text(encoding="utf-8")
    taxonomy = Taxonomy.from_tsv(taxonomies / "bgc.tsv")
    display = {node_name(name): name for line in hierarchy.splitlines() for name in line.split("\t")}
    sizes = {"train": 58_715, "dev": 14_785, "test": 18_394}
    with zipfile.ZipFile(raw / "blurbgenrecollectionen.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("hierarchy.txt", hierarchy)
        for part, size in sizes.items():
            ends = spread(list(taxonomy.names), size, texts, fewest=5)
            books = (_book(end, taxonomy, display, texts) for end in ends)
            archive.writestr(f"BlurbGenreCollection_EN_{part}.txt", "".join(books))


def _book(end: str, taxonomy: Taxonomy, display: dict[str, str], texts: Texts) -> str:
    more = texts.rng.choice(taxonomy.names, size=texts.rng.integers(0, 3)).tolist()
    nodes, level = {taxonomy.index[name] for name in [end, *more]}, taxonomy.levels
    for node in sorted(nodes, key=lambda node: -level[node]):
        while taxonomy.parents[node]:
            (node,) = taxonomy.parents[node]
            nodes.add(node)
    shuffled = texts.rng.permutation(sorted(nodes)).tolist()
    topics = "".join(
        f"<d{level[node] - 1}>{html.escape(display[taxonomy.names[node]])}</d{level[node] - 1}>"
        for node in sorted(shuffled, key=lambda node: level[node])
    )
    return (
        '<book date="2018-08-18" xml:lang="en">\n'
        f"<title>{texts.take()[:30]}</title>\n<body>{texts.take()} & so on</body>\n<copyright>(c) Nobody</copyright>\n"
        f"<metadata>\n<topics>{topics}</topics>\n<author>N. N.</author>\n<published>Jan 01, 2018 </published>\n"
        "<isbn>0</isbn>\n<url>https://example.org</url>\n</metadata>\n</book>\n"
    )


def write_bugs(raw: Path, taxonomies: Path, texts: Texts) -> None:
    """Write a stand-in for Linux Bugs.

    It has 35,050 reports that are to be kept, among copies, rows without a message, and labels that are too rare.

    Args:
        raw: folder to write to.
        taxonomies: folder of the taxonomies.
        texts: source of the texts.
    """
    taxonomy = Taxonomy.from_tsv(taxonomies / "bugs.tsv")
    leaves = taxonomy.names[taxonomy.level_slices[1]]
    parent = _parents(taxonomy)
    pairs = {leaf: (parent[leaf], leaf.removeprefix(f"{parent[leaf]}_")) for leaf in leaves}
    rows = [(*_report(texts), "P1 normal", *pairs[leaf]) for leaf in spread(list(leaves), 35_050, texts, fewest=100)]
    rows += [(*_report(texts), "P1 normal", "Drivers", "USB")] * 40
    rows += [(texts.take()[:60], "", "P1 normal", "Drivers", "USB")] * 100
    rows += [(*_report(texts), "P1 normal", "Drivers", "Rare") for _ in range(99)]
    rows += [(*_report(texts), "P1 normal", "Rare", "Other") for _ in range(99)]
    texts.rng.shuffle(rows)
    with (raw / "linux_bugs.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["title", "message", "importance", "product", "component"])
        writer.writerows(rows)


def _parents(taxonomy: Taxonomy) -> dict[str, str]:
    pairs = ((node, parent) for node, parents in enumerate(taxonomy.parents) for parent in parents)
    return {taxonomy.names[node]: taxonomy.names[parent] for node, parent in pairs}


def _report(texts: Texts) -> tuple[str, str]:
    text = texts.take(80)
    return f"{text[:60]} {next(texts.numbers)}", f'{text[60:]}\n\tat "{text[:10]}"\n'


def write_amazon(raw: Path, taxonomies: Path, texts: Texts) -> None:
    """Write a stand-in for Amazon 5x5.

    It has 500,000 reviews, 20,000 of each category, two thirds in the file for training and one third in that for
    testing, as published.

    Args:
        raw: folder to write to.
        taxonomies: folder of the taxonomies.
        texts: source of the texts.
    """
    taxonomy = Taxonomy.from_tsv(taxonomies / "amazon.tsv")
    parent = _parents(taxonomy)
    labels = [leaf for leaf in taxonomy.names[taxonomy.level_slices[1]] for _ in range(20_000)]
    texts.rng.shuffle(labels)
    reviews = iter(labels)
    for part, size in {"train": 333_333, "test": 166_667}.items():
        with (raw / f"amazon_{part}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(_lines(itertools.islice(reviews, size), parent, texts))


def _lines(leaves: Iterator[str], parent: dict[str, str], texts: Texts) -> Iterator[str]:
    for leaf in leaves:
        yield json.dumps({"text": texts.take(), "labels": [parent[leaf], leaf]}) + "\n"


WRITERS = {
    "wos": (write_wos, 1376), "bgc": (write_bgc, 960), "bugs": (write_bugs, 2026), "amazon": (write_amazon, 2194),
}  # fmt: skip

if __name__ == "__main__":
    main()
