"""Pretraining tasks of encoder-decoders: texts from which tokens are removed, for the decoder to write.

Tokens are int32 arrays of one dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.int32]

_MEAN_SPAN = 3  # mean length of a hole in tokens, as in both papers


def corrupt_spans(
    text: Tokens, sentinel_ids: Sequence[int], probability: float, rng: np.random.Generator
) -> tuple[Tokens, Tokens]:
    """Corrupt a text for T5's task (Raffel et al. 2020, section 3.3.4): each removed span is replaced by a sentinel.

    Args:
        text: tokens of one document.
        sentinel_ids: ids of the sentinel tokens, in the order in which they are used.
        probability: share of the tokens that is removed, in spans of 3 on average.
        rng: draws the spans.

    Returns:
        The text with sentinels; and what the decoder is to write, which is sentinel and tokens of each span, then one
        more sentinel. Nothing is to be written for a text too short to lose a token.
    """
    num_taken = min(round(len(text) * probability), len(text) - 1)
    if num_taken < 1:
        return text, text[:0]
    num_spans = min(max(1, round(num_taken / _MEAN_SPAN)), len(text) - num_taken + 1, len(sentinel_ids) - 1)
    cuts = np.sort(rng.choice(num_taken - 1, num_spans - 1, replace=False)) + 1
    starts, ends = _place_spans(len(text), np.diff(np.array([0, *cuts, num_taken])), rng)
    kept: list[Tokens | list[int]] = []
    target: list[Tokens | list[int]] = []
    position = 0
    for sentinel, start, end in zip(sentinel_ids, starts, ends, strict=False):
        kept += [text[position:start], [sentinel]]
        target += [[sentinel], text[start:end]]
        position = end
    return _concatenated([*kept, text[position:]]), _concatenated([*target, [sentinel_ids[num_spans]]])


def infill_text(text: Tokens, mask_id: int, probability: float, rng: np.random.Generator) -> Tokens:
    """Corrupt a text for BART's task (Lewis et al. 2020, section 2.2): each removed span is replaced by one mask.

    Lengths of spans are drawn from Poisson(3); for a span of no tokens a mask is inserted. The decoder is to write the
    whole original text.

    Args:
        text: tokens of one document.
        mask_id: id of the mask token.
        probability: share of the tokens that is removed.
        rng: draws the spans.

    Returns:
        The text with masks.
    """
    num_taken = min(round(len(text) * probability), len(text))
    if num_taken < 1:
        return text
    lengths = rng.poisson(_MEAN_SPAN, size=2 * num_taken + 10)
    lengths = lengths[: int(np.searchsorted(lengths.cumsum(), num_taken)) + 1]
    lengths = lengths[: len(text) - num_taken + 1]  # a token must remain between any two spans
    lengths[-1] -= max(0, int(lengths.sum()) - num_taken)
    parts: list[Tokens | list[int]] = []
    position = 0
    for start, end in zip(*_place_spans(len(text), lengths, rng), strict=True):
        parts += [text[position:start], [mask_id]]
        position = end
    return _concatenated([*parts, text[position:]])


def _place_spans(
    size: int, lengths: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Place spans of given lengths at random in ``size`` tokens, in order and with a token between any two.

    Returns:
        Starts and ends of the spans.
    """
    gaps = np.sort(rng.choice(size - int(lengths.sum()) + 1, len(lengths), replace=False))
    ends = gaps + lengths.cumsum()
    return ends - lengths, ends


def _concatenated(parts: Sequence[Tokens | list[int]]) -> Tokens:
    return np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])
