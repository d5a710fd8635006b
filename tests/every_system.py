"""A tiny real model of each system on the toy taxonomy, whose scores are spread out, and its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from conftest import TOY_DOCUMENTS, TOY_EDGES, saved_ptmt, tiny_source
from family_models import save_family

from ptmt_lightning.backbones import Pretrained
from ptmt_lightning.inference import Classifier
from ptmt_lightning.inference.engines import OnnxScorer, OpenVinoScorer, ProgramScorer
from ptmt_lightning.inference.export import FileFormat, export_model
from ptmt_lightning.models.base import HTCModel
from ptmt_lightning.models.bert import BERTClassifier
from ptmt_lightning.models.bert_ml import BERTML
from ptmt_lightning.models.frozen import FrozenEncoder
from ptmt_lightning.models.gacaps import GACaps
from ptmt_lightning.models.hbgl import HBGL
from ptmt_lightning.models.hpt import HPT
from ptmt_lightning.taxonomy import Taxonomy

TEXTS = [str(document["text"]) for document in TOY_DOCUMENTS]
MORE = [*TEXTS, "", "m", "m n " * 100]
PEERS: dict[str, tuple[type[HTCModel], dict[str, Any]]] = {
    "bert": (BERTClassifier, {}),
    "bert_ml": (BERTML, {"num_layers": 2}),
    "frozen": (FrozenEncoder, {}),
    "gacaps": (GACaps, {"num_features": 6, "capsule_size": 4}),
    "hbgl": (HBGL, {"pretraining_steps": 0}),
    "hpt": (HPT, {}),
}
SYSTEMS = ("ptmt", *PEERS)
ENGINES = {"onnx": OnnxScorer, "openvino": OpenVinoScorer, "torch_export": ProgramScorer}
SPREAD = {"hbgl": 30, "gacaps": 1.5}  # factors by which scores of layers at their start are spread out


def saved(folder: Path, system: str, model_type: str | None = None, **changes: Any) -> HTCModel:
    """An evaluating model; what it saves lies in ``folder / "model"``."""
    if system == "ptmt":
        return saved_ptmt(folder, Taxonomy(TOY_EDGES), model_type, **changes)
    torch.manual_seed(0)
    kind, settings = PEERS[system]
    source = tiny_source() if model_type is None else Pretrained(name=str(save_family(folder, model_type, TEXTS)))
    backbone, tokenizer, max_length = source.load(TEXTS)
    shared: dict[str, Any] = {"taxonomy": Taxonomy(TOY_EDGES), "backbone": backbone, "tokenizer": tokenizer}
    model = kind(max_length=max_length, threshold=[0.4, 0.5, 0.3], **shared, **settings | changes).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("backbone.") and not name.endswith("bias"):
                parameter.normal_() if system == "frozen" else parameter.mul_(SPREAD.get(system, 20))
        for name, buffer in model.named_buffers():
            if name == "capsules.vote_scale":  # which a validation would have measured
                buffer.fill_(1.3)
    model.save_pretrained(folder / "model")
    return model


def labels(predictions: Any) -> list[list[tuple[str, ...]]]:
    return [[path.labels for path in prediction] for prediction in predictions]


def check_exported(folder: Path, file_format: FileFormat) -> None:
    """Export ``folder / "model"``, and compare what it scores and predicts with the trained model."""
    trained = Classifier.from_pretrained(folder / "model", device="cpu")
    export_model(str(folder / "model"), folder / "exported", file_format=file_format)
    exported = Classifier.from_pretrained(folder / "exported", trust=True)
    assert isinstance(exported.score, ENGINES[file_format])
    for texts in (MORE, MORE[:1], MORE[2:6], MORE * 5):  # sizes that were not traced
        torch.testing.assert_close(exported.probabilities(texts), trained.probabilities(texts), rtol=0, atol=1e-4)
    assert labels(exported.predict(MORE)) == labels(trained.predict(MORE))
