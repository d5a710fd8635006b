"""Conversion of search ranges from Hydra's grammar to Optuna's distributions."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial


def distribution_of(override: Override) -> BaseDistribution:
    """Return Optuna's distribution for a range such as ``loss.margin=interval(0.02,0.1)``.

    Raises:
        ValueError: the range has no valid bounds.
    """
    value = override.value()
    try:
        if isinstance(value, IntervalSweep):
            low, high, log_scale = value.start, value.end, "log" in value.tags
            assert low is not None
            assert high is not None
            if isinstance(low, int) and isinstance(high, int):
                return IntDistribution(low, high, log=log_scale)
            return FloatDistribution(low, high, log=log_scale)
        if isinstance(value, RangeSweep):
            values = sorted(value.range())
            if values and all(isinstance(number, int) for number in values):
                return IntDistribution(values[0], values[-1], step=abs(int(value.step)))
        choices = [str(choice) for choice in override.sweep_string_iterator()]
    except ValueError as error:
        raise ValueError(
            f"{override.input_line}: {error}; expected LOW below HIGH, and LOW above 0 with tag(log,...)"
        ) from error
    is_shuffled = getattr(value, "shuffle", False)  # the order differs at each start, but a study refuses another order
    return CategoricalDistribution(sorted(choices) if is_shuffled else choices)


def any_value(distribution: BaseDistribution) -> Any:
    """Return one of the values that a distribution can give; which one does not matter."""
    return distribution.choices[0] if isinstance(distribution, CategoricalDistribution) else distribution.low  # type: ignore[attr-defined]


def edge_of(distribution: BaseDistribution, value: Any) -> str | None:
    """Return ``lowest`` or ``highest`` where a value is at the end of its range, beyond which a better one may be.

    An end is a twentieth of an interval, on its scale, or the last of at least three numbers; other choices have none.
    """
    if isinstance(distribution, CategoricalDistribution):
        numbers = list[float]()
        with suppress(TypeError, ValueError):
            numbers = [float(choice) for choice in (value, *distribution.choices)]
        if len(set(numbers)) < 3:
            return None
        value, low, high = numbers[0], min(numbers), max(numbers)
    else:
        value, low, high = (
            math.log(end) if distribution.log else end  # type: ignore[attr-defined]
            for end in (value, distribution.low, distribution.high)  # type: ignore[attr-defined]
        )
    if low == high or 0.05 < (value - low) / (high - low) < 0.95:
        return None
    return "lowest" if value - low < high - value else "highest"


def suggest(trial: Trial, key: str, distribution: BaseDistribution) -> None:
    """Let the trial's sampler draw a value for the setting ``key``, which the trial then holds."""
    match distribution:
        case FloatDistribution():
            trial.suggest_float(key, distribution.low, distribution.high, log=distribution.log)
        case IntDistribution(low=low, high=high):
            trial.suggest_int(key, low, high, step=distribution.step, log=distribution.log)
        case CategoricalDistribution():
            trial.suggest_categorical(key, distribution.choices)
