"""Texts by which an exported model is measured and fitted: a sample of a file, or made up of names of labels."""

from __future__ import annotations

import itertools
import random
import re

from ptmt_lightning.inference.text_files import read_rows
from ptmt_lightning.taxonomy import Taxonomy

_SEED = 0


def sample_of_file(source: str, number: int, text_column: str = "text") -> list[str]:
    """Return texts of a file, drawn at random but each time alike; all of them if they are not more than ``number``.

    Args:
        source: path of the file, in a form that ``ptmt predict`` reads.
        number: largest number of texts.
        text_column: column, or key, that holds the text.

    Raises:
        ValueError: the file can't be read, or holds no text.
    """
    drawing = random.Random(_SEED)
    chosen: list[str] = []
    texts = (row.text for row in read_rows(source, text_column=text_column) if row.error is None)
    for place, text in enumerate(texts):
        if place < number:
            chosen.append(text)
        elif (drawn := drawing.randrange(place + 1)) < number:  # each text so far is kept with the same probability
            chosen[drawn] = text
    if not chosen:
        raise ValueError(f"{source}: holds no text that can be read; expected some to measure with")
    return chosen


def made_up(taxonomy: Taxonomy, number: int, longest: int) -> list[str]:
    """Return texts of words from names of labels, of one word to ``longest``: a makeshift where there are no real ones.

    Args:
        taxonomy: has the names.
        number: number of texts.
        longest: largest number of words of a text.
    """
    drawing = random.Random(_SEED)
    words = sorted(set(itertools.chain.from_iterable(re.findall(r"\w+", name) for name in taxonomy.labels))) or ["a"]
    return [" ".join(drawing.choices(words, k=drawing.randint(1, longest))) for _ in range(number)]
