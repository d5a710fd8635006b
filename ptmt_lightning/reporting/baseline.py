"""The baseline, chosen among configurations, that others are compared with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ptmt_lightning.run_folder.finished import Run, headings

Values = tuple[str, ...]  # a configuration's values of the settings that differ
Groups = Mapping[Values, Sequence[Run]]  # the runs of each configuration


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
