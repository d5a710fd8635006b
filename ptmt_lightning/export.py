"""A trained model as an ONNX file, run by :class:`~ptmt_lightning.inference.Classifier` without PyTorch's layers."""

from __future__ import annotations

import logging
import shutil
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor, nn

from ptmt_lightning.collator import PTMTBatch
from ptmt_lightning.data.document import Example
from ptmt_lightning.files import new_folder
from ptmt_lightning.inference import Classifier
from ptmt_lightning.model_folder import ONNX_FILE
from ptmt_lightning.scorers import TorchScorer

log = logging.getLogger(__name__)

_COPIED = ("config.json", "taxonomy.json", "ptmt.json", "README.md")
_INPUTS = ("input_ids", "attention_mask", "text_lengths", "positions")
_DYNAMIC = torch.export.Dim.DYNAMIC


def export_onnx(model: str, target: Path, *, int8: bool = False) -> None:
    """Write a folder that ``Classifier.from_pretrained`` opens, with any numbers of documents and tokens a batch.

    Args:
        model: folder of a trained model, or its name on a hub.
        target: a new folder.
        int8: weights and, as they come, activations of matrix products in 8 bits.

    Raises:
        ValueError: ``target`` exists, or a model that can't be exported.
    """
    if target.exists():
        raise ValueError(f"{target} is there already; give another folder")
    classifier = Classifier.from_pretrained(model, device="cpu")
    if not isinstance(classifier.score, TorchScorer):
        raise ValueError(f"{model} is exported already")
    if classifier.template.form == "encoder-decoder":
        raise ValueError(f"{model} is an encoder-decoder, which can't be exported yet; encoders and decoders can")
    target.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(target) as folder:
        source = classifier.folder.path
        for name in _COPIED:
            if (source / name).exists():
                shutil.copy(source / name, folder / name)
        classifier.tokenizer.save_pretrained(folder)
        _write(classifier, folder / ONNX_FILE)
        if int8:
            _quantize(folder / ONNX_FILE)


class _Exported(nn.Module):
    """The scorer with tensors alone as arguments."""

    def __init__(self, score: TorchScorer) -> None:
        super().__init__()
        self.score = score

    def forward(self, input_ids: Tensor, attention_mask: Tensor, text_lengths: Tensor, positions: Tensor) -> Tensor:
        nothing = input_ids.new_zeros(0)
        logits: Tensor = self.score(
            PTMTBatch(
                rows=nothing, input_ids=input_ids, attention_mask=attention_mask, text_lengths=text_lengths,
                decoder_ids=None, positions=positions, mlm_index=nothing, mlm_ids=nothing, slots=nothing,
                targets=nothing, num_text_tokens=0,
            )
        )  # fmt: skip
        return logits


def _write(classifier: Classifier, path: Path) -> None:
    """Trace three documents of unlike lengths; batch and length stay open."""
    nothing = np.array([], dtype=np.int32)
    ids = classifier.token_ids(["a", "b c d", "e f"])
    batch = classifier.collate([Example(i, 0, np.array(text, dtype=np.int32), nothing) for i, text in enumerate(ids)])
    shapes = ({0: _DYNAMIC, 1: _DYNAMIC}, {0: _DYNAMIC, 1: _DYNAMIC}, {0: _DYNAMIC}, {0: _DYNAMIC})
    assert isinstance(classifier.score, TorchScorer)
    # 23 is the first that has attention as one operation, which takes half of the time of its parts. It has rotations
    # as one, too, but onnxruntime refuses those of ModernBERT.
    opset = 23 if classifier.score.backbone.family.is_bert_like else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            _Exported(classifier.score).eval(), tuple(getattr(batch, name) for name in _INPUTS), dynamo=True,
            input_names=list(_INPUTS), output_names=["logits"], dynamic_shapes=shapes, verbose=False,
            opset_version=opset,
        )  # fmt: skip
    assert program is not None
    program.save(str(path))


def _quantize(path: Path) -> None:
    """Replace the file by its 8-bit version."""
    whole = onnx.load(str(path))
    for stored in path.parent.glob(f"{path.name}*"):
        stored.unlink()
    # Without a list it takes ONNX's attention for an operation of its own with the same name.
    quantize_dynamic(
        whole, str(path), weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul", "Gather"]
    )
