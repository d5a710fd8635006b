"""Saved models in the pipelines of Transformers; the import of this module registers the task.

Example:
    ``transformers.pipeline("hierarchical-text-classification", model="RUN/model")("a text")``
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline

from ptmt_lightning.inference.classifier import Classifier
from ptmt_lightning.utils.checks import shortened

TASK = "hierarchical-text-classification"


class _SavedModel(NamedTuple):
    """The name of a saved model, which the pipeline itself opens: Transformers would go on after an error."""

    name: str
    trust: bool

    @classmethod
    def from_pretrained(cls, name: str, *, revision: str | None = None, trust: bool = False, **_: Any) -> _SavedModel:
        return cls(f"{name}@{revision}" if revision and not Path(name).exists() else name, trust)


class _Model:
    """A classifier with what pipelines ask of their models."""

    input_modalities = ("text",)

    def __init__(self, classifier: Classifier) -> None:
        parameter = next(classifier.score.parameters(), None) if isinstance(classifier.score, torch.nn.Module) else None
        self.device = torch.device("cpu") if parameter is None else parameter.device
        self.dtype = getattr(torch, classifier.precision)

    def can_generate(self) -> bool:
        return False


class HierarchicalTextClassificationPipeline(Pipeline):
    """Predicts the label paths of texts, the same as :meth:`.Classifier.predict`, in the form of Transformers.

    Called with a text, it returns a list with a dictionary a path, the most probable last label first: ``label``, the
    last label of the path; ``score``, its probability; ``path``, all labels from the top level down. A list of texts
    gives a list of them; a generator or a data set gives an iterator, which reads a few batches at a time.

    Args:
        model: a saved model, or an open :class:`Classifier`.
        device: as in other pipelines; None for a GPU where there is one, and for the one that an open model is on.
        dtype: number format of weights and computation; ``auto`` for float32.
        batch_size: texts in a batch.
        settings: ``threshold``, ``top_k`` (labels on each level) and ``prune`` of :meth:`.Classifier.predict`, which a
            call takes, too; and further settings of pipelines.

    Raises:
        ValueError: the model can't be opened, or not on this device; an entry is no text, or an option is not valid.
    """

    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = False

    def __init__(
        self,
        model: _SavedModel | Classifier,
        *,
        device: int | str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        batch_size: int = 32,
        **settings: Any,
    ) -> None:
        if isinstance(model, _SavedModel):
            if isinstance(device, int):
                device = "cpu" if device < 0 else f"cuda:{device}"
            precision: Any = "float32" if dtype in (None, "auto") else str(dtype).removeprefix("torch.")
            model = Classifier.from_pretrained(model.name, device=device, precision=precision, trust=model.trust)
        elif not isinstance(model, Classifier):
            raise ValueError(f"model: expected a saved model, or an open Classifier, got {type(model).__name__}")
        self.classifier = model
        wrapped: Any = _Model(model)
        super().__init__(model=wrapped, device=wrapped.device, batch_size=batch_size, **settings)

    def _sanitize_parameters(  # type: ignore[override] # other parameters are refused
        self, threshold: Any = None, top_k: int | None = None, prune: bool | None = None
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        options = {"threshold": threshold, "top_k": top_k, "prune": prune}
        return {}, {name: value for name, value in options.items() if value is not None}, {}

    def preprocess(self, input_: Any, **_: Any) -> dict[str, Any]:
        """Take one text.

        Raises:
            ValueError: it is none.
        """
        if not isinstance(input_, str):
            shown = f"{type(input_).__name__} {shortened(repr(input_), 80)}"
            raise ValueError(f"expected a text, or a list, a generator or a data set of texts, got {shown}")
        return {"text": input_}

    def _forward(self, input_tensors: Mapping[str, Any], **options: Any) -> Any:
        return {"prediction": self.classifier.predict(input_tensors["text"], **options)}

    def postprocess(self, model_outputs: Mapping[str, Any], **_: Any) -> list[dict[str, Any]]:
        """Return the predicted paths of one text as dictionaries."""
        return [
            {"label": labels[-1], "score": probabilities[-1], "path": list(labels)}
            for labels, probabilities in model_outputs["prediction"]
        ]

    def get_iterator(
        self,
        inputs: Iterable[Any],
        num_workers: int,
        batch_size: int,
        preprocess_params: Mapping[str, Any],
        forward_params: Mapping[str, Any],
        postprocess_params: Mapping[str, Any],
    ) -> Iterator[list[dict[str, Any]]]:
        """Return an iterator over the predictions of several texts; batches hold texts of similar length."""
        predictions = self.classifier.predict(iter(inputs), batch_size=batch_size, **forward_params)
        return (self.postprocess({"prediction": prediction}) for prediction in predictions)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **_: Any) -> None:
        """Copy the model's files into a new folder, and no code; see :meth:`.Classifier.save_pretrained`."""
        self.classifier.save_pretrained(Path(save_directory))

    def push_to_hub(  # type: ignore[override] # the hub is sent the files as they are
        self, repo_id: str, *, private: bool = False
    ) -> str:
        """Upload the model's files to a model hub; see :meth:`.Classifier.push_to_hub`."""
        return self.classifier.push_to_hub(repo_id, private=private)


PIPELINE_REGISTRY.register_pipeline(TASK, HierarchicalTextClassificationPipeline, pt_model=_SavedModel)
