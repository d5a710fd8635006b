"""Use a trained model: ``from ptmt_lightning.inference import Classifier``; nothing of training is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptmt_lightning.inference.classifier import Classifier as Classifier
    from ptmt_lightning.inference.classifier import LabelPath as LabelPath
    from ptmt_lightning.inference.classifier import Prediction as Prediction

__all__ = ["Classifier", "LabelPath", "Prediction"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for: the modules beside this one do without PyTorch where they can."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ptmt_lightning.inference import classifier

    return getattr(classifier, name)
