"""Differences between configurations and their baselines, by every test that the runs allow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from ptmt_lightning.reporting.baseline import Groups, Values
from ptmt_lightning.reporting.significance import (
    METRICS,
    Comparison,
    Resampled,
    compare_both,
    compare_documents,
    compare_seeds,
    compare_unpaired,
    holm,
    resample,
    seed_scores,
)
from ptmt_lightning.run_folder.finished import Run

log = logging.getLogger(__name__)

LEVEL = 0.05  # of significance, after Holm's correction


class Difference(NamedTuple):
    """How a configuration compares with its baseline, by the names of :data:`TESTS`."""

    tested: dict[str, Comparison]
    untested: dict[str, str]  # why not

    @property
    def deciding(self) -> dict[str, Comparison]:
        """The tests that a claim stands on: Welch's where seeds could not be paired."""
        return {name: found for name, found in self.tested.items() if name != "welch" or "seeds" not in self.tested}

    def holds(self, sign: int) -> bool:
        """Return whether all tests that could be made say that the difference has this sign, 1 or -1, beyond chance.

        A claim needs the test over both among them. That alone does not do: with few seeds its bootstrap is too sure,
        which Student's test is not.
        """
        return all(found.p_holm < LEVEL and sign * found.difference > 0 for found in self.deciding.values())


class _Side(NamedTuple):
    """What is known of a configuration to compare it by."""

    scores: dict[int, float]  # by seed
    resampled: Resampled | None
    lacking: str = ""  # why there is no resampled

    def drawn(self) -> Resampled:
        if self.resampled is None:
            raise ValueError(self.lacking)
        return self.resampled


# Each with the name of what it is over.
TESTS: dict[str, tuple[str, Callable[[_Side, _Side], Comparison]]] = {
    "documents": ("documents", lambda ours, base: compare_documents(ours.drawn(), base.drawn())),
    "seeds": ("seeds, paired", lambda ours, base: compare_seeds(ours.scores, base.scores)),
    "welch": ("seeds, Welch", lambda ours, base: compare_unpaired(ours.scores, base.scores)),
    "both": ("both", lambda ours, base: compare_both(ours.drawn(), base.drawn())),
}


def differences(
    groups: Groups, baselines: Mapping[Values, Values], metric: str, split: str = "test"
) -> dict[Values, Difference]:
    """Return how configurations compare with their baselines; what can't be tested is warned of.

    The p-values of each test are corrected for the number of configurations that it compares.

    Args:
        groups: the runs of each configuration.
        baselines: of each configuration to compare the one to compare it with.
        metric: the score to compare; over documents one of those that can be had from saved predictions.
        split: ``val`` or ``test``; predictions are saved of the latter alone.
    """
    wanted = dict.fromkeys([*baselines.values(), *baselines])
    sides = {values: _side(groups[values], metric, split) for values in wanted}
    found = {values: _difference(sides[values], sides[base]) for values, base in baselines.items()}
    _correct(found.values())
    _warn(found)
    return found


def _side(runs: Sequence[Run], metric: str, split: str) -> _Side:
    scores = seed_scores(runs, metric, split)
    if split != "test" or metric not in METRICS:
        return _Side(scores, None, f"saved predictions give {' and '.join(METRICS)} of test alone")
    try:
        return _Side(scores, resample(runs, metric))
    except ValueError as error:
        return _Side(scores, None, str(error))


def _difference(ours: _Side, baseline: _Side) -> Difference:
    difference = Difference({}, {})
    for name, (_, test) in TESTS.items():
        try:
            difference.tested[name] = test(ours, baseline)
        except ValueError as error:
            difference.untested[name] = str(error)
    return difference


def _correct(found: Collection[Difference]) -> None:
    """Put the corrected p-values of each test into the differences."""
    for name in TESTS:
        compared = [difference.tested for difference in found if name in difference.tested]
        for tested, p in zip(compared, holm([tested[name].p for tested in compared]), strict=True):
            tested[name] = tested[name]._replace(p_holm=p, num_comparisons=len(compared))


def _warn(found: Mapping[Values, Difference]) -> None:
    """Say once for each reason what could not be tested."""
    reasons: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for values, difference in found.items():
        for name, reason in difference.untested.items():
            tests, configurations = reasons.setdefault(reason, ({}, {}))
            tests[TESTS[name][0]] = configurations[" / ".join(values)] = None
    for reason, (tests, configurations) in reasons.items():
        log.warning("not tested over %s: %s (%s)", "; ".join(tests), reason, ", ".join(configurations))
