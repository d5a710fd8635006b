"""What encoder-decoders are pretrained on: texts with holes, and the tokens that the decoder has to write.

Tokens are integer arrays of one dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int32]

_MEAN_SPAN = 3  # of both papers


def corrupt_spans(
    text: Tokens, sentinel_ids: Sequence[int], probability: float, rng: np.random.Generator
) -> tuple[Tokens, Tokens]:
    """T5's objective (Raffel et al. 2020, section 3.3.4): each hole is a sentinel, the decoder writes what was there.

    Args:
        probability: share of the tokens that is taken out, in spans of 3 on average.

    Returns:
        The text with holes; and sentinel and span of each hole, and the next sentinel.
    """
    num_taken = min(round(len(text) * probability), len(text) - 1)
    if num_taken < 1:
        return text, text[:0]
    num_spans = min(max(1, round(num_taken / _MEAN_SPAN)), len(text) - num_taken + 1, len(sentinel_ids) - 1)
    cuts = np.sort(rng.choice(num_taken - 1, num_spans - 1, replace=False)) + 1
    starts, ends = _place(len(text), np.diff(np.array([0, *cuts, num_taken])), rng)
    kept: list[Tokens | list[int]] = []
    target: list[Tokens | list[int]] = []
    position = 0
    for sentinel, start, end in zip(sentinel_ids, starts, ends, strict=False):
        kept += [text[position:start], [sentinel]]
        target += [[sentinel], text[start:end]]
        position = end
    return _joined([*kept, text[position:]]), _joined([*target, [sentinel_ids[num_spans]]])


def infill_text(text: Tokens, mask_id: int, probability: float, rng: np.random.Generator) -> Tokens:
    """BART's objective (Lewis et al. 2020, section 2.2): holes of Poisson(3) tokens, each one mask, be it of none.

    The decoder writes the whole text.
    """
    num_taken = min(round(len(text) * probability), len(text))
    if num_taken < 1:
        return text
    lengths = rng.poisson(_MEAN_SPAN, size=2 * num_taken + 10)
    lengths = lengths[: int(np.searchsorted(lengths.cumsum(), num_taken)) + 1]
    lengths = lengths[: len(text) - num_taken + 1]  # no two holes side by side
    lengths[-1] -= max(0, int(lengths.sum()) - num_taken)
    parts: list[Tokens | list[int]] = []
    position = 0
    for start, end in zip(*_place(len(text), lengths, rng), strict=True):
        parts += [text[position:start], [mask_id]]
        position = end
    return _joined([*parts, text[position:]])


def _place(
    size: int, lengths: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Starts and ends of spans of these lengths, in order, with a token between any two."""
    gaps = np.sort(rng.choice(size - int(lengths.sum()) + 1, len(lengths), replace=False))
    ends = gaps + lengths.cumsum()
    return ends - lengths, ends


def _joined(parts: Sequence[Tokens | list[int]]) -> Tokens:
    return np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])
