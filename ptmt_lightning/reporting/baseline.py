"""Comparison of configurations with a baseline that is chosen among them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence

from ptmt_lightning.reporting.significance import METRICS, compare, resample
from ptmt_lightning.run_folder.finished import Run, headings

log = logging.getLogger(__name__)

Values = tuple[str, ...]  # a configuration's values of the settings that differ


def differences(
    keys: Sequence[str], groups: Mapping[Values, Sequence[Run]], baseline: str, metric: str
) -> dict[Values, dict[str, float]]:
    """Return how each configuration compares with the baseline of its data set.

    The values are the fields of :class:`~ptmt_lightning.reporting.significance.Comparison`. A configuration that can't
    be compared is left out, with a warning.

    Args:
        keys: the settings in which configurations differ.
        groups: the runs of each configuration.
        baseline: ``NAME=VALUE,...``, the settings that one configuration of each data set has.
        metric: the score to compare, one that can be computed from saved predictions.

    Raises:
        ValueError: no configuration is the baseline, or several of a data set are; or the metric needs more than
            predictions.
    """
    if metric not in METRICS:
        known = " or ".join(METRICS)
        raise ValueError(f"--baseline: {metric} can't be had from saved predictions; name {known} first in --metrics")
    found = {}
    for dataset, chosen in _baselines(keys, groups, baseline).items():
        rivals = [values for values in groups if _dataset(keys, values) == dataset and values != chosen]
        try:
            base = resample(groups[chosen], metric)
        except ValueError as error:
            log.warning("nothing is compared with %s: %s", " / ".join(chosen), error)
            continue
        for values in rivals:
            try:
                found[values] = compare(resample(groups[values], metric), base)._asdict()
            except ValueError as error:
                log.warning("not compared: %s", error)
    return found


def _dataset(keys: Sequence[str], values: Values) -> str | None:
    """Return the data set of a configuration, or None if all runs are on the same one."""
    return dict(zip(keys, values, strict=True)).get("dataset.name")


def _baselines(keys: Sequence[str], groups: Iterable[Values], baseline: str) -> dict[str | None, Values]:
    """Return the configuration of each data set that has the settings ``NAME=VALUE,...``.

    Raises:
        ValueError: a setting does not differ between runs, or no configuration or several have the values.
    """
    names = headings(keys)
    index = {name: at for at, name in enumerate(names)} | {key: at for at, key in enumerate(keys)}
    wanted = [part.partition("=") for part in re.split(r",(?=[\w.]+=)", baseline)]
    for name, _, _ in wanted:
        if name not in index:
            raise ValueError(f"--baseline {baseline}: {name} does not differ; these do: {', '.join(names)}")
    chosen: dict[str | None, Values] = {}
    for values in groups:
        if all(values[index[name]] == value for name, _, value in wanted):
            other = chosen.setdefault(_dataset(keys, values), values)
            if other != values:
                raise ValueError(
                    f"--baseline {baseline}: fits {' / '.join(other)} and {' / '.join(values)}; name more settings, "
                    "separated by commas"
                )
    if not chosen:
        known = "; ".join(f"{name}: {', '.join(sorted({v[index[name]] for v in groups}))}" for name, _, _ in wanted)
        raise ValueError(f"--baseline {baseline}: no run has it; known: {known}")
    return chosen
