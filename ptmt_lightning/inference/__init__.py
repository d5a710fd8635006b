"""The use of trained models: ``from ptmt_lightning.inference import Classifier``; imports no training code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptmt_lightning.utils.lazy import lazy_names

if TYPE_CHECKING:
    from ptmt_lightning.inference.classifier import Classifier as Classifier
    from ptmt_lightning.inference.classifier import LabelPath as LabelPath
    from ptmt_lightning.inference.classifier import Prediction as Prediction

__all__ = ["Classifier", "LabelPath", "Prediction"]

__getattr__ = lazy_names(__name__, dict.fromkeys(__all__, "classifier"))
