"""The estimator for scikit-learn: ``from ptmt_lightning.estimator import PTMTClassifier``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptmt_lightning.utils.lazy import lazy_names

if TYPE_CHECKING:
    from ptmt_lightning.estimator.estimator import PTMTClassifier as PTMTClassifier

__all__ = ["PTMTClassifier"]

__getattr__ = lazy_names(__name__, dict.fromkeys(__all__, "estimator"))
