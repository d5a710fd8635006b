"""Export of a trained model to one file, in ONNX's format or that of ``torch.export``.

:class:`~ptmt_lightning.inference.Classifier` runs the file without the layers of Transformers.
"""

from __future__ import annotations

import io
import logging
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ptmt_lightning.data.document import Example
from ptmt_lightning.inference.classifier import Classifier
from ptmt_lightning.inference.engines import TorchScorer
from ptmt_lightning.inference.model_folder import ONNX_FILE, PROGRAM_FILE
from ptmt_lightning.utils.digests import model_digests
from ptmt_lightning.utils.files import new_folder, write_json

log = logging.getLogger(__name__)

FileFormat = Literal["onnx", "torch_export"]

_COPIED = ("config.json", "tokenizer.json", "taxonomy.json", "README.md")


def export_model(model: str, target: Path, *, file_format: FileFormat = "onnx", int8: bool = False) -> None:
    """Write a model as a folder with one file for all of its layers, which ``Classifier.from_pretrained`` opens.

    The exported model takes batches of any number of documents and any length.

    Args:
        model: folder of a trained model, or its name on a hub.
        target: the folder to make.
        file_format: ``onnx`` for onnxruntime; ``torch_export`` for ``torch.export.load``.
        int8: compute matrix products with 8-bit numbers: weights are converted now, activations when the model runs.
            Needs ``onnx``.

    Raises:
        ValueError: ``target`` exists, the model can't be exported, an option is not valid, or a package is missing.
    """
    if file_format not in get_args(FileFormat):
        raise ValueError(f"format={file_format!r}: expected one of {', '.join(get_args(FileFormat))}")
    if int8 and file_format != "onnx":
        raise ValueError(f"int8 with format={file_format!r}: expected format='onnx', which alone can be in 8 bits")
    if target.exists():
        raise ValueError(f"{target} is there already; give another folder")
    classifier = Classifier.from_pretrained(model, device="cpu")
    if not isinstance(classifier.score, TorchScorer):
        raise ValueError(f"{model} is exported already")
    if (reason := classifier.folder.system.kept_from_export) is not None:
        raise ValueError(f"{model} is {reason}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(target) as folder:
        source = classifier.folder.path
        classifier.tokenizer.save_pretrained(folder)
        for name in _COPIED:
            if (source / name).exists():
                shutil.copyfile(source / name, folder / name)
        with _quiet():
            program = _traced(classifier, classifier.score.network)
            if file_format == "onnx":
                _write_onnx(program, folder / ONNX_FILE, classifier, int8=int8)
            else:
                buffer = io.BytesIO()  # given a path, PyTorch aborts the process where the disk is full
                torch.export.save(program, buffer)
                (folder / PROGRAM_FILE).write_bytes(buffer.getbuffer())
        settings = classifier.folder.settings
        name = classifier.folder.settings_file.name
        write_json(folder / name, {**settings, "digest": model_digests(folder, settings, name)})


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings and logging within this block: the exporters report on their own internals only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


class _Exported(nn.Module):
    """The model's layers with nothing but tensors as arguments, as exporters need them."""

    def __init__(self, network: nn.Module, batch: Any, inputs: Sequence[str]) -> None:
        super().__init__()
        self.network, self.batch, self.inputs = network, batch, inputs

    def forward(self, *tensors: Tensor) -> Tensor:
        logits: Tensor = self.network(self.batch._replace(**dict(zip(self.inputs, tensors, strict=True))))
        return logits


def _traced(classifier: Classifier, network: nn.Module) -> ExportedProgram:
    """Trace the model's layers on documents of different lengths; numbers of documents and tokens stay variable."""
    nothing = np.array([], dtype=np.int32)
    ids = classifier.token_ids(["a", "b c d", "e f"])
    batch = classifier.collate([Example(i, 0, np.array(text, dtype=np.int32), nothing) for i, text in enumerate(ids)])
    inputs = classifier.folder.system.inputs
    shapes = tuple(dict.fromkeys(inputs[name], torch.export.Dim.DYNAMIC) for name in inputs)
    tensors = tuple(getattr(batch, name) for name in inputs)
    with torch.no_grad():
        return torch.export.export(_Exported(network, batch, tuple(inputs)).eval(), tensors, dynamic_shapes=(shapes,))


def _write_onnx(program: ExportedProgram, path: Path, classifier: Classifier, *, int8: bool) -> None:
    try:
        import onnx  # comes with the extra "onnx", as do the packages that PyTorch and the next line import
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ImportError as error:
        raise ValueError(f"format='onnx': {error}; install it with pip install 'ptmt_lightning[onnx]'") from error
    # Opset 23 is the first with attention as one operation, which takes half the time of its parts. It also has rotary
    # positions as one operation, but onnxruntime refuses those of ModernBERT.
    assert isinstance(classifier.score, TorchScorer)
    opset = 23 if classifier.score.backbone.family.is_bert_like else None
    exported = torch.onnx.export(
        program, dynamo=True, input_names=list(classifier.folder.system.inputs), output_names=["logits"],
        verbose=False, opset_version=opset,
    )  # fmt: skip
    assert exported is not None
    exported.save(str(path))
    if not int8:
        return
    whole = onnx.load(str(path))
    for stored in path.parent.glob(f"{path.name}*"):
        stored.unlink()
    # Without a list of operations, it would mistake ONNX's attention for onnxruntime's operation of the same name.
    quantize_dynamic(
        whole, str(path), weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul", "Gather"]
    )
