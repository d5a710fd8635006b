"""Comparison of configurations with a baseline that is chosen among them."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ptmt_lightning.reporting.significance import METRICS, Comparison, compare, compare_seeds, resample
from ptmt_lightning.run_folder.finished import Run, headings

log = logging.getLogger(__name__)

Values = tuple[str, ...]  # a configuration's values of the settings that differ
Groups = Mapping[Values, Sequence[Run]]  # the runs of each configuration


class Difference(NamedTuple):
    """How a configuration compares with its baseline; None where there is nothing to tell by."""

    documents: Comparison | None = None  # had other documents been tested
    seeds: Comparison | None = None  # had other seeds been trained


def differences(
    groups: Groups, baselines: Mapping[Values, Values], metric: str, split: str = "test"
) -> dict[Values, Difference]:
    """Return how configurations compare with their baselines; what can't be compared over documents is warned of.

    Args:
        groups: the runs of each configuration.
        baselines: of each configuration to compare the one to compare it with.
        metric: the score to compare; over documents one of those that can be had from saved predictions.
        split: ``val`` or ``test``; predictions are saved of the latter alone.
    """
    found = {
        values: Difference(seeds=compare_seeds(groups[values], groups[base], metric, split))
        for values, base in baselines.items()
    }
    if split != "test" or metric not in METRICS:
        return found
    for base in dict.fromkeys(baselines.values()):
        try:
            drawn = resample(groups[base], metric)
        except ValueError as error:
            log.warning("nothing is compared with %s: %s", " / ".join(base), error)
            continue
        for values in (values for values in baselines if baselines[values] == base):
            try:
                found[values] = found[values]._replace(documents=compare(resample(groups[values], metric), drawn))
            except ValueError as error:
                log.warning("not compared: %s", error)
    return found


def against(keys: Sequence[str], groups: Groups, baseline: str) -> dict[Values, Values]:
    """Return the baseline of each other configuration of its data set, where there is one.

    Args:
        keys: the settings in which configurations differ.
        groups: the runs of each configuration.
        baseline: ``NAME=VALUE,...``, the settings that one configuration of each data set has.

    Raises:
        ValueError: no configuration is the baseline, or several of a data set are.
    """
    chosen = _baselines(keys, groups, baseline)
    bases = {values: chosen.get(dataset_of(keys, values)) for values in groups}
    return {values: base for values, base in bases.items() if base is not None and base != values}


def dataset_of(keys: Sequence[str], values: Values) -> str | None:
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
            other = chosen.setdefault(dataset_of(keys, values), values)
            if other != values:
                raise ValueError(
                    f"--baseline {baseline}: fits {' / '.join(other)} and {' / '.join(values)}; name more settings, "
                    "separated by commas"
                )
    if not chosen:
        known = "; ".join(f"{name}: {', '.join(sorted({v[index[name]] for v in groups}))}" for name, _, _ in wanted)
        raise ValueError(f"--baseline {baseline}: no run has it; known: {known}")
    return chosen
