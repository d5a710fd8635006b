"""What runs say, data set by data set: which configuration is best, by how much, at what cost."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ptmt_lightning.reporting.baseline import Groups, Values, against, dataset_of
from ptmt_lightning.reporting.differences import Difference, differences
from ptmt_lightning.reporting.report import check_baseline, configurations
from ptmt_lightning.reporting.significance import Comparison
from ptmt_lightning.run_folder.finished import Run, headings

MOST_COMPARED = 12  # configurations of a data set, the best ones: each takes two thousand scores of each of its runs

COSTS = {
    "fit_minutes": ("training", "device minutes", ".3g"),
    "test_milliseconds": ("testing a document", "ms", ".3g"),
    "parameters": ("size", "million parameters", ".3g"),
}


class Configuration(NamedTuple):
    """Runs that differ in their seeds alone."""

    name: str  # what it sets, such as "bert, train_fraction 0.25"
    system: str  # the part of the name that is no number: configurations of one system share a colour
    runs: Sequence[Run]
    mean: float
    deviation: float | None  # of a single run None
    costs: dict[str, float]  # by the keys of COSTS, those that are known
    difference: Difference  # to the finding's reference; empty of itself, and of what is not compared


class Finding(NamedTuple):
    """The configurations of a data set, the best first."""

    dataset: str
    metric: str
    split: str
    configurations: list[Configuration]
    reference: Configuration  # the one that differences are taken from
    is_asked_for: bool  # as --baseline; otherwise the best that is of another system than the winner

    def sentences(self) -> list[str]:
        """Return in plain words who wins, by how much, whether by chance, and at what cost."""
        best, rival = self.configurations[0], self.reference
        place = f"{self.metric} {best.mean:.4f} on {self.split}"
        if len(self.configurations) == 1:
            return [f"{best.name} has {place}; there is nothing to compare it with.", _costs(best)]
        sign, difference = 1, best.difference
        if best is rival:  # the baseline is the best: how far the next one is behind, from the other side
            rival = self.configurations[1]
            sign, difference = -1, rival.difference
        return [
            f"{best.name} {_verb(difference, sign)} with {place}: {best.mean - rival.mean:.4f} more than {rival.name}.",
            *_chances(difference, sign),
            _costs(best, rival),
        ]


def findings(runs: Sequence[Run], *, metric: str, split: str, baseline: str | None) -> list[Finding]:
    """Return what the runs say about each data set.

    Args:
        runs: runs with scores on the split.
        metric: the score that orders configurations.
        split: ``val`` or ``test``.
        baseline: ``NAME=VALUE,...`` of the configuration to compare with; None to compare with the best of another
            system than the winner.

    Raises:
        ValueError: the baseline is not one configuration of a data set.
    """
    keys, groups = configurations(runs)
    means = {values: _mean(members, metric, split) for values, members in groups.items()}
    datasets: dict[str | None, list[Values]] = {}
    for values in sorted(groups, key=lambda values: -means[values]):
        datasets.setdefault(dataset_of(keys, values), []).append(values)
    names = {values: _names(keys, values, groups[values][0]) for values in groups}
    if len({system for _, system in names.values()}) == 1:
        names = {values: (name, name) for values, (name, _) in names.items()}
    if baseline is not None:
        check_baseline(metric, split)
        chosen = against(keys, groups, baseline)
    else:
        chosen = {values: _second(ordered, names) for ordered in datasets.values() for values in ordered}
    # Those of all data sets at once: Holm's correction is for the whole report.
    compared = differences(
        groups,
        {
            values: chosen[values]
            for ordered in datasets.values()
            for values in ordered[:MOST_COMPARED]
            if chosen.get(values, values) != values
        },
        metric,
        split,
    )
    found = []
    for ordered in datasets.values():
        reference = next((chosen[values] for values in ordered if values in compared), ordered[0])
        members = {values: _configuration(groups, values, names[values], metric, split, compared) for values in ordered}
        dataset = groups[ordered[0]][0].result["dataset"]
        found.append(
            Finding(dataset, metric, split, list(members.values()), members[reference], baseline is not None)
        )  # fmt: skip
    return sorted(found, key=lambda finding: finding.dataset)


def run_costs(result: Mapping[str, Any]) -> dict[str, float]:
    """Return what a run cost, by the keys of ``COSTS``; what is not known of it is left out."""
    tested, documents = result["seconds"].get("test"), result.get("num_documents", {}).get("test")
    costs = {"fit_minutes": result["seconds"]["fit"] / 60 * result.get("num_devices", 1)}
    if tested and documents:
        costs["test_milliseconds"] = 1000 * tested / documents
    if "num_parameters" in result:
        costs["parameters"] = result["num_parameters"] / 1e6
    return costs


def _configuration(
    groups: Groups, values: Values, names: tuple[str, str], metric: str, split: str, compared: dict[Values, Difference]
) -> Configuration:
    runs = groups[values]
    scores = [score for run in runs if (score := run.result[split].get(metric)) is not None]
    costs = [run_costs(run.result) for run in runs]
    return Configuration(
        *names,
        runs,
        _mean(runs, metric, split),
        statistics.stdev(scores) if len(scores) > 1 else None,
        {key: statistics.mean(c[key] for c in costs) for key in COSTS if all(key in c for c in costs)},
        compared.get(values, Difference({}, {})),
    )


def _mean(runs: Sequence[Run], metric: str, split: str) -> float:
    scores = [score for run in runs if (score := run.result[split].get(metric)) is not None]
    return statistics.mean(scores) if scores else float("nan")


def _names(keys: Sequence[str], values: Values, run: Run) -> tuple[str, str]:
    """Return the names of a configuration and of its system, made of what it sets."""
    parts = [
        (value if key in ("run.model", "run.variant") else f"{heading} {value}", _is_number(value))
        for key, heading, value in zip(keys, headings(keys), values, strict=True)
        if key != "dataset.name" and value != "-"
    ]
    system = ", ".join(part for part, is_number in parts if not is_number) or run.result["model"]
    numbers = [part for part, is_number in parts if is_number]
    return ", ".join([system, *numbers]), system


def _is_number(value: str) -> bool:
    return re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", value) is not None


def _second(ordered: Sequence[Values], names: Mapping[Values, tuple[str, str]]) -> Values:
    """Return the best configuration of another system than the winner, else the second, else the only one."""
    others = (values for values in ordered if names[values][1] != names[ordered[0]][1])
    return next(others, ordered[min(1, len(ordered) - 1)])


def _verb(difference: Difference, sign: int) -> str:
    """Return what a configuration in front does; it wins only where the test of seeds and documents held, too."""
    if not difference.tested:
        return "is ahead, which is not tested,"
    if not difference.holds(sign):
        return "is ahead, but within the range of chance,"
    if "both" in difference.tested:
        return "wins"
    tested, other = ("documents", "seeds") if "documents" in difference.tested else ("seeds", "documents")
    return f"is ahead by a test over {tested}, while {other} are not tested,"


_QUESTIONS = {
    "documents": "Had other documents been tested",
    "seeds": "Had other seeds been trained, by pairs of runs with one seed",
    "welch": "Had other seeds been trained",
    "both": "Had both been others",
}


def _chances(difference: Difference, sign: int) -> list[str]:
    """Return what the tests say of a difference, or of its opposite where ``sign`` is -1."""
    texts = [
        f"{_QUESTIONS[name]}: {interval(found if sign > 0 else _turned(found))}."
        for name, found in difference.deciding.items()
    ]
    if {"seeds", "welch"} <= difference.untested.keys():
        texts.append(f"What other seeds would give is not known: {difference.untested['welch']}.")
    return texts


def _turned(found: Comparison) -> Comparison:
    return found._replace(difference=-found.difference, low=-found.high, high=-found.low)


def interval(found: Comparison) -> str:
    """Return the 95 % interval of a difference, its p-value, and that corrected for all comparisons, as text."""
    corrected = f" ({_p(found.p_holm)} by Holm of {found.num_comparisons})" if found.num_comparisons > 1 else ""
    return f"{found.low:+.4f} to {found.high:+.4f} (95 %), p {_p(found.p)}{corrected}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def _costs(best: Configuration, rival: Configuration | None = None) -> str:
    parts = []
    for key, (what, unit, form) in COSTS.items():
        if key in best.costs:
            other = f" ({rival.costs[key]:{form}})" if rival and key in rival.costs else ""
            parts.append(f"{what} {best.costs[key]:{form}}{other} {unit}")
    return "Its cost" + (f" (of {rival.name})" if rival else "") + f": {', '.join(parts)}."
