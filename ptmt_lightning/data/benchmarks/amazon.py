"""Amazon 5x5 (Zangari et al. 2024): 500,000 reviews, five product domains with five categories each, one path a review.

The benchmark is the published JSON lines. :func:`read_raw_reviews` makes data of the same kind from the raw reviews
(Ni et al. 2019), but with other reviews: which of Amazon's categories belong to which label is our reading.
"""

from __future__ import annotations

import html
import logging
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ptmt_lightning.data.benchmarks.base import FoldedDataModule, Published, Raw
from ptmt_lightning.data.benchmarks.download import zenodo
from ptmt_lightning.data.benchmarks.prepared import Labelled, read_jsonl
from ptmt_lightning.data.document import parse_json, read_lines

log = logging.getLogger(__name__)

_REVIEWS_A_DOMAIN = 100_000
_FEWEST_WORDS = 100  # a usable review has more words than these
# Amazon's own category names (lower case), by domain and label.
_CATEGORIES: dict[str, dict[str, tuple[str, ...]]] = {
    "Video_Games": {
        "xbox": ("xbox", "xbox 360", "xbox one"),
        "nintendo": ("nintendo ds", "nintendo 3ds & 2ds", "nintendo switch", "wii", "wii u"),
        "playstation": ("playstation 2", "playstation 3", "playstation 4", "playstation vita", "sony psp"),
        "pc": ("pc", "mac", "linux games"),
        "retro-gaming-microconsoles": ("retro gaming & microconsoles", "game boy", "game boy advance", "gamecube",
                                       "nintendo 64", "sega genesis", "sega dreamcast", "super nintendo"),
    },
    "Electronics": {
        "camera-photo": ("camera & photo",),
        "computers-accessories": ("computers & accessories",),
        "headphones": ("headphones",),
        "television-video": ("television & video",),
        "vehicle-electronics": ("car & vehicle electronics", "car electronics", "marine electronics"),
    },
    "Grocery_and_Gourmet_Food": {
        "beverages": ("beverages",),
        "candy": ("candy & chocolate",),
        "cooking-baking": ("cooking & baking",),
        "herbs-spices-seasonings": ("herbs, spices & seasonings",),
        "snack-foods": ("snack foods",),
    },
    "Arts_Crafts_and_Sewing": {
        "beading-jewelry-making": ("beading & jewelry making",),
        "crafting": ("crafting",),
        "knitting-crochet": ("knitting & crochet",),
        "painting-drawing-art-print": ("painting, drawing & art supplies", "printmaking"),
        "sewing": ("sewing",),
    },
    "Musical_Instruments": {
        "guitars": ("guitars", "bass guitars"),
        "instrument-accessories": ("instrument accessories",),
        "microphones": ("microphones & accessories",),
        "other-instruments": ("band & orchestra", "drums & percussion", "keyboards & midi", "stringed instruments",
                              "ukuleles, mandolins & banjos", "wind & woodwind instruments"),
        "studio-recording": ("studio recording equipment", "live sound & stage"),
    },
}  # fmt: skip


class AmazonDataModule(FoldedDataModule):
    """The Amazon 5x5 benchmark; see :class:`~ptmt_lightning.data.benchmarks.base.FoldedDataModule`."""

    short_name = "amazon"
    source = zenodo("7319519", "amazon_train.jsonl", "amazon_test.jsonl")
    published = Published(500_000, (5, 25), 2194, 266_666, 66_667, 166_667)

    def read_raw(self, files: Sequence[Path]) -> Raw:
        """Read the published JSON lines or, where they are missing, the raw reviews."""
        published = self.jsonl_files(files)
        pairs = {
            domain: (self.only_file(files, f"{domain}.json.gz"), self.only_file(files, f"meta_{domain}.json.gz"))
            for domain in _CATEGORIES
        }
        raw = {domain: (pair[0], pair[1]) for domain, pair in pairs.items() if pair[0] and pair[1]}
        if len(raw) < len(_CATEGORIES) if not published else any(any(pair) for pair in pairs.values()):
            raise self.not_found(
                files,
                "one of: amazon_train.jsonl with amazon_test.jsonl; the raw reviews "
                + ", ".join(f"{domain}.json.gz with meta_{domain}.json.gz" for domain in _CATEGORIES),
            )
        if published:
            return Raw(", ".join(path.name for path in published), {"all": read_jsonl(published)}, Counter())
        return Raw("the raw reviews", {"all": read_raw_reviews(raw)}, Counter())


def read_raw_reviews(files: Mapping[str, tuple[Path, Path]]) -> Iterator[Labelled]:
    """Yield up to 100,000 reviews of each domain, in the order of its file.

    Each label gets an equal share, filled with its longest reviews. What is missing then is filled with the longest of
    the other reviews. A file of reviews is read twice.

    Args:
        files: for each domain, its reviews and product data: ``Video_Games.json.gz``, ``meta_Video_Games.json.gz``.

    Raises:
        ValueError: a record is not as expected, or a domain has no usable review; the message names the file.
    """
    for domain, (reviews, products) in files.items():
        label_of = _product_labels(products, _CATEGORIES[domain])
        chosen = _chosen_lines(reviews, label_of, len(_CATEGORIES[domain]))
        if not chosen.any():
            raise ValueError(f"{reviews}: no review of over {_FEWEST_WORDS} words on a product with one of our labels")
        if chosen.sum() < _REVIEWS_A_DOMAIN:
            log.warning("%s: %d usable reviews, expected %d", reviews, chosen.sum(), _REVIEWS_A_DOMAIN)
        top = domain.replace("_", "-").lower()
        for number, (where, record) in enumerate(_json_lines(reviews, asin=str)):
            if chosen[number]:
                label = sorted(_CATEGORIES[domain])[label_of[record["asin"]]]
                yield Labelled(_review_text(record), [[top, f"{top}_{label}"]], where)


def _product_labels(path: Path, categories: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """Return the label of each product that has exactly one, as a number in alphabetical order."""
    label_of_category = {name: i for i, label in enumerate(sorted(categories)) for name in categories[label]}
    labels = {}
    for _, record in _json_lines(path, asin=str, category=list):
        names = {html.unescape(str(name)).strip().lower() for name in record["category"]}
        found = {label_of_category[name] for name in names if name in label_of_category}
        if len(found) == 1:
            labels[record["asin"]] = found.pop()
    return labels


def _chosen_lines(path: Path, label_of: Mapping[str, int], num_labels: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which lines to take, bool ``[lines]``.

    They are each label's share of the longest reviews, then the longest of the rest.
    """
    lengths, labels = array("i"), array("b")  # compact, as there are tens of millions of reviews
    for _, record in _json_lines(path, asin=str):
        text = _review_text(record)
        long_enough = record["asin"] in label_of and len(text.split()) > _FEWEST_WORDS
        lengths.append(len(text) if long_enough else 0)
        labels.append(label_of.get(record["asin"], -1))
    length, label = np.frombuffer(lengths, dtype=np.int32), np.frombuffer(labels, dtype=np.int8)
    longest_first = np.argsort(-length, kind="stable")[: np.count_nonzero(length)]
    chosen = np.zeros(len(length), dtype=bool)
    for number in range(num_labels):
        rows = longest_first[label[longest_first] == number]
        chosen[rows[: _REVIEWS_A_DOMAIN // num_labels]] = True
    rest = longest_first[~chosen[longest_first]]
    chosen[rest[: _REVIEWS_A_DOMAIN - int(chosen.sum())]] = True
    return chosen


def _review_text(record: Mapping[str, Any]) -> str:
    summary, text = (_string(record.get(key)).strip() for key in ("summary", "reviewText"))
    return re.sub(r"\s+", " ", f"{summary.rstrip('.!?')}. {text}" if summary else text)


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _json_lines(path: Path, **keys: type) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, line in read_lines(path):
        if not line.strip():
            continue
        record = parse_json(line, where, "fetch the file again")
        for key, kind in keys.items():
            if not isinstance(record, dict) or not isinstance(record.get(key), kind):
                raise ValueError(
                    f"{where}: expected an object with {key!r}, a {kind.__name__}; got {line[:60].rstrip()!r}"
                )
        yield where, record
