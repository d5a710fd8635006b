"""A page that shows explanations: the text once for each label, with the words marked that speak for and against it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment

from ptmt_lightning.inference.explain import LabelExplanation
from ptmt_lightning.taxonomy.files import STEP

_TEMPLATE = Path(__file__).with_name("explain_page.html")


class _Piece(NamedTuple):
    """A part of the text: a word with its value, or what is between two words (value None)."""

    text: str
    value: float | None
    strength: float  # of 1, the highest in the text


def explanation_page(text: str, found: Sequence[LabelExplanation]) -> str:
    """Return an HTML page that loads nothing, with a section for each explained label.

    Args:
        text: the text that was explained.
        found: its explanations.
    """
    template = Environment(autoescape=True).from_string(_TEMPLATE.read_text(encoding="utf-8"))
    labels = [
        {"path": STEP.join(label.path), "probability": label.probability, "pieces": _pieces(text, label)}
        for label in found
    ]
    return template.render(labels=labels)


def _pieces(text: str, label: LabelExplanation) -> list[_Piece]:
    highest = max((abs(word.value) for word in label.words), default=0.0) or 1.0
    pieces, end = [], 0
    for word in label.words:
        pieces.append(_Piece(text[end : word.start], None, 0.0))
        pieces.append(_Piece(word.text, word.value, abs(word.value) / highest))
        end = word.start + len(word.text)
    return [*pieces, _Piece(text[end:], None, 0.0)]
