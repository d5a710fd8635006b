"""Calibration: probabilities that say how often a label is true, fitted on validation documents.

Both ways keep the order of the probabilities of a level, so that thresholds can be carried over: a label is above its
threshold before if and only if it is so after.

Shape legend: ``B`` and ``N`` documents, ``V`` nodes (ordered by level), ``D`` levels.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

Method = Literal["temperature", "isotonic"]
Probabilities = Callable[[Tensor, Sequence[int]], Tensor]  # of scores [B, V] and the levels' sizes: float32 [B, V]

_RANGE = (-4.0, 4.0)  # logarithms of temperatures that are tried
_SLOPE = 1e-3  # share of the probability itself in a calibrated one, so that different ones stay different


class Calibration(ABC):
    """Turns scores into calibrated probabilities.

    Attributes:
        name: identifies the method in settings and in the folder of a saved model.
    """

    name: ClassVar[Method]

    @classmethod
    @abstractmethod
    def fit(
        cls, probabilities: Probabilities, logits: Tensor, targets: Tensor, level_sizes: Sequence[int]
    ) -> Calibration:
        """Fit a calibration to documents whose labels are known.

        Args:
            probabilities: turns scores into probabilities that are to be calibrated.
            logits: scores ``[N, V]``.
            targets: true nodes, bool ``[N, V]``.
            level_sizes: number of nodes of each level.
        """

    @abstractmethod
    def apply(self, probabilities: Probabilities, logits: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Return the calibrated probabilities of scores ``[B, V]``, float32 ``[B, V]``."""

    @abstractmethod
    def threshold(self, level: int, value: float) -> float:
        """Return the calibrated probability of a label with a given probability on a level, counted from 0."""

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """Return what was fitted, as plain types."""

    @classmethod
    @abstractmethod
    def from_json(cls, content: Mapping[str, Any], num_levels: int) -> Calibration:
        """Return the calibration whose content :meth:`to_json` returned.

        Raises:
            ValueError: the content is not one for so many levels.
        """


@dataclass(frozen=True)
class Temperature(Calibration):
    """Divides the scores of each level by one number (Guo et al. 2017, section 4.2).

    Args:
        temperatures: one a level, above 0.
    """

    temperatures: tuple[float, ...]
    name = "temperature"

    @classmethod
    def fit(
        cls, probabilities: Probabilities, logits: Tensor, targets: Tensor, level_sizes: Sequence[int]
    ) -> Temperature:
        """Choose the temperature of each level with the lowest binary cross-entropy, from the top level down.

        A level's probabilities may depend on those above it, but on none below.
        """
        from scipy.optimize import minimize_scalar  # imported only here, as saved models need no SciPy

        found = [1.0] * len(level_sizes)
        for level, true in enumerate(targets.split(list(level_sizes), dim=-1)):

            def loss(logarithm: float, level: int = level, true: Tensor = true) -> float:
                tried = cls((*found[:level], math.exp(logarithm), *found[level + 1 :]))
                scaled = tried.apply(probabilities, logits, level_sizes).split(list(level_sizes), dim=-1)[level]
                return torch.nn.functional.binary_cross_entropy(scaled.double(), true.double()).item()

            found[level] = round(math.exp(minimize_scalar(loss, bounds=_RANGE, method="bounded").x), 6)
        return cls(tuple(found))

    def apply(self, probabilities: Probabilities, logits: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Return the probabilities of the divided scores."""
        levels = logits.float().split(list(level_sizes), dim=-1)
        scaled = [level / temperature for level, temperature in zip(levels, self.temperatures, strict=True)]
        return probabilities(torch.cat(scaled, dim=-1), level_sizes)

    def threshold(self, level: int, value: float) -> float:
        """Return the probability of the divided score, of which the probability was a sigmoid."""
        if not 0 < value < 1:
            return value
        return 1 / (1 + math.exp(-math.log(value / (1 - value)) / self.temperatures[level]))

    def to_json(self) -> dict[str, Any]:
        """Return the method's name and the temperatures."""
        return {"method": self.name, "temperatures": list(self.temperatures)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], num_levels: int) -> Temperature:
        """Return the calibration with these temperatures."""
        temperatures = _numbers(content, "temperatures", num_levels)
        if min(temperatures) <= 0:
            raise ValueError(f"temperatures {temperatures}: expected numbers above 0")
        return cls(temperatures)


@dataclass(frozen=True)
class Isotonic(Calibration):
    """Maps the probabilities of each level along the rising curve that fits best (Zadrozny and Elkan 2002).

    The curve runs in straight lines through the centres of the blocks of isotonic regression (centred isotonic
    regression, Oron and Flournoy 2017), and so has no steps on which different probabilities would become equal.

    Args:
        curves: a level's curve is a pair: rising probabilities from 0 to 1, and the calibrated ones at these.
    """

    curves: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
    name = "isotonic"

    @classmethod
    def fit(cls, probabilities: Probabilities, logits: Tensor, targets: Tensor, level_sizes: Sequence[int]) -> Isotonic:
        """Fit the curve of each level by least squares."""
        levels = _by_level(probabilities(logits, level_sizes), targets, level_sizes)
        return cls(tuple(_curve(found.flatten(), true.flatten()) for found, true in levels))

    def apply(self, probabilities: Probabilities, logits: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Return the curves' values at the probabilities of the scores."""
        levels = probabilities(logits, level_sizes).split(list(level_sizes), dim=-1)
        return torch.cat([_along(curve, level) for curve, level in zip(self.curves, levels, strict=True)], dim=-1)

    def threshold(self, level: int, value: float) -> float:
        """Return the curve's value at a probability."""
        return float(_along(self.curves[level], torch.tensor([value])).item())

    def to_json(self) -> dict[str, Any]:
        """Return the method's name and the curves."""
        return {"method": self.name, "curves": [[list(part) for part in curve] for curve in self.curves]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], num_levels: int) -> Isotonic:
        """Return the calibration with these curves."""
        curves = content.get("curves")
        if not isinstance(curves, list) or len(curves) != num_levels:
            raise ValueError(f"curves of a calibration: expected {num_levels}, one a level of the taxonomy")
        known = []
        for curve in curves:
            if not isinstance(curve, list) or len(curve) != 2 or not isinstance(curve[0], list):
                raise ValueError("a curve of a calibration: expected two lists of numbers")
            x, y = (_numbers({"curve": part}, "curve", len(curve[0])) for part in curve)
            if len(x) < 2 or (x[0], x[-1]) != (0, 1) or min(np.diff(x)) <= 0 or min(np.diff(y)) <= 0:
                raise ValueError("a curve of a calibration: expected rising numbers, the first ones from 0 to 1")
            known.append((x, y))
        return cls(tuple(known))


CALIBRATIONS: dict[str, type[Calibration]] = {kind.name: kind for kind in (Temperature, Isotonic)}


def check_calibrate(calibrate: str | None) -> None:
    """Refuse a method of calibration that is not known.

    Raises:
        ValueError: names the setting and what it may be.
    """
    if calibrate not in (None, *get_args(Method)):
        raise ValueError(f"model.calibrate={calibrate!r}: expected null, {' or '.join(map(repr, get_args(Method)))}")


def read_calibration(content: object, num_levels: int) -> Calibration | None:
    """Return the calibration of a saved model, of what :meth:`Calibration.to_json` returned, or None without any.

    Raises:
        ValueError: the content is none of a known calibration for so many levels.
    """
    if content is None:
        return None
    if not isinstance(content, Mapping) or content.get("method") not in CALIBRATIONS:
        raise ValueError(f"calibration: expected null, or one whose method is {' or '.join(CALIBRATIONS)}")
    return CALIBRATIONS[content["method"]].from_json(content, num_levels)


def _by_level(values: Tensor, targets: Tensor, level_sizes: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(values.split(list(level_sizes), dim=-1), targets.split(list(level_sizes), dim=-1), strict=True))


def _numbers(content: Mapping[str, Any], key: str, size: int) -> tuple[float, ...]:
    values = content.get(key)
    if not isinstance(values, list) or len(values) != size:
        raise ValueError(f"{key} of a calibration: expected a list of {size} numbers")
    if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
        raise ValueError(f"{key} of a calibration: expected finite numbers")
    return tuple(map(float, values))


def _curve(probabilities: Tensor, true: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the curve that fits probabilities and true labels, both ``[n]``."""
    from sklearn.isotonic import isotonic_regression  # imported only here, as saved models need no scikit-learn

    x, place = np.unique(probabilities.double().numpy(), return_inverse=True)
    weights = np.bincount(place)
    shares = np.bincount(place, weights=true.double().numpy()) / weights
    fitted = isotonic_regression(shares, sample_weight=weights, y_min=0, y_max=1)
    _, block = np.unique(fitted, return_inverse=True)
    sizes = np.bincount(block, weights=weights)
    centres = np.bincount(block, weights=weights * x) / sizes
    values = np.bincount(block, weights=weights * shares) / sizes
    inner = (centres > 0) & (centres < 1)
    x = np.array([0.0, *centres[inner], 1.0])
    y = (1 - _SLOPE) * np.array([0.0, *values[inner], 1.0]) + _SLOPE * x
    return tuple(x.tolist()), tuple(y.tolist())


def _along(curve: tuple[Sequence[float], Sequence[float]], probabilities: Tensor) -> Tensor:
    """Return the values of a curve, joined by straight lines, at float32 probabilities of any shape."""
    x, y = (torch.tensor(part, dtype=torch.float64, device=probabilities.device) for part in curve)
    right = torch.searchsorted(x, probabilities.double().contiguous()).clamp(1, len(x) - 1)
    left = right - 1
    share = (probabilities - x[left]) / (x[right] - x[left])
    return (y[left] + share * (y[right] - y[left])).float()
