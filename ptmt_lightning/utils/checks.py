"""Checks of values that users set, with one form of message for all."""

from __future__ import annotations

from math import isfinite
from numbers import Real


def shortened(text: object, width: int = 200) -> str:
    """Return what a message shows of a value from a file: its text, cut where it is longer than ``width``."""
    shown = str(text)
    return shown if len(shown) <= width else f"{shown[: width - 3]}..."


def check_range(
    key: str,
    value: object,
    low: float,
    high: float = float("inf"),
    *,
    integer: bool = False,
    low_open: bool = False,
    high_open: bool = False,
) -> None:
    """Refuse a value that is not a number in ``[low, high]``, without ``low`` or ``high`` where that end is open.

    Raises:
        ValueError: the value is out of range; the message names configuration key, value and range.
    """
    is_number = isinstance(value, int if integer else Real) and not isinstance(value, bool)
    if is_number and (isinstance(value, int) or isfinite(value)):  # type: ignore[arg-type]
        above = low < value if low_open else low <= value  # type: ignore[operator]
        if above and (value < high if high_open else value <= high):  # type: ignore[operator]
            return
    kind = "an integer" if integer else "a number"
    least, most = (str(bound) if isinstance(bound, int) else f"{bound:g}" for bound in (low, high))
    bounds = (
        f"{'>' if low_open else '>='} {least}"
        if high == float("inf")
        else f"in {'(' if low_open else '['}{least}, {most}{')' if high_open else ']'}"
    )
    raise ValueError(f"{key}={shortened(repr(value))}: expected {kind} {bounds}; set {key} to one")
