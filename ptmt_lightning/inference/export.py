"""Export of a trained model to a file, in the format of ONNX, OpenVINO or ``torch.export``.

:class:`~ptmt_lightning.inference.Classifier` runs the file without the layers of Transformers.
"""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ptmt_lightning.data.document import Example
from ptmt_lightning.inference.classifier import Classifier
from ptmt_lightning.inference.engines import TorchScorer, open_exported
from ptmt_lightning.inference.model_folder import ONNX_FILE, OPENVINO_FILE, PROGRAM_FILE, ModelFolder
from ptmt_lightning.inference.openvino_export import write_openvino
from ptmt_lightning.utils.digests import model_digests
from ptmt_lightning.utils.files import new_folder, write_json

FileFormat = Literal["onnx", "openvino", "torch_export"]

_NUM_CALIBRATION = 300  # texts that fit 8-bit numbers; NNCF's own default
_COPIED = ("config.json", "tokenizer.json", "taxonomy.json", "README.md")
_CLOSE = 1e-3  # largest difference of probabilities between float32 in two engines that is rounding


class Form(NamedTuple):
    """What a model is exported as."""

    file_format: FileFormat
    int8: bool = False
    bfloat16: bool = False  # what is not in 8 bits; of OpenVINO, on CPUs that can

    @property
    def name(self) -> str:
        """Name of the form, such as ``openvino-int8``."""
        return self.file_format + "-int8" * self.int8 + "-bfloat16" * self.bfloat16

    @property
    def fits_texts(self) -> bool:
        """Whether 8-bit numbers are fitted to texts."""
        return self.int8 and self.file_format == "openvino"

    @property
    def settings(self) -> dict[str, bool]:
        """Settings of the exported model by which it is run."""
        return {"bfloat16": True} if self.bfloat16 else {}


def export_model(
    model: str,
    target: Path,
    *,
    file_format: FileFormat = "onnx",
    int8: bool = False,
    texts: Sequence[str] = (),
) -> None:
    """Write a model as a folder with one file for all of its layers, which ``Classifier.from_pretrained`` opens.

    The exported model takes batches of any number of documents and any length.

    Args:
        model: folder of a trained model, or its name on a hub.
        target: the folder to make.
        file_format: ``onnx`` for onnxruntime; ``openvino`` for OpenVINO; ``torch_export`` for ``torch.export.load``.
        int8: compute matrix products with 8-bit numbers. ONNX converts weights now and activations when the model
            runs. OpenVINO fixes the ranges of activations now, by ``texts``; without any, only weights are in 8 bits.
            Not for ``torch_export``.
        texts: texts like those to be predicted, for OpenVINO in 8 bits; 300 are enough.

    Raises:
        ValueError: ``target`` exists, the model can't be exported, an option is not valid, or a package is missing.
    """
    if file_format not in get_args(FileFormat):
        raise ValueError(f"format={file_format!r}: expected one of {', '.join(get_args(FileFormat))}")
    if int8 and file_format == "torch_export":
        raise ValueError(
            f"int8 with format={file_format!r}: expected format='onnx' or 'openvino', which can be in 8 bits"
        )
    form = Form(file_format, int8)
    if texts and not form.fits_texts:
        raise ValueError(f"texts with {form.name}: only format='openvino' with int8 is fitted to texts; leave them out")
    classifier = open_to_export(model, target)
    with new_folder(target) as folder:
        write_exported(classifier, traced(classifier), folder, form, texts)
        if not int8:
            _check_scores(classifier, folder, form)


def open_to_export(model: str, target: Path) -> Classifier:
    """Open a model that is to be exported, and make the folder that ``target`` is to be in.

    Raises:
        ValueError: ``target`` exists, there is no such model, or it can't be exported.
    """
    if target.exists():
        raise ValueError(f"{target} is there already; give another folder")
    classifier = Classifier.from_pretrained(model, device="cpu")
    if not isinstance(classifier.score, TorchScorer):
        raise ValueError(f"{model} is exported already")
    if (reason := classifier.folder.system.kept_from_export) is not None:
        raise ValueError(f"{model} is {reason}")
    target.parent.mkdir(parents=True, exist_ok=True)
    return classifier


def write_exported(
    classifier: Classifier, program: ExportedProgram, folder: Path, form: Form, texts: Sequence[str] = ()
) -> None:
    """Write an exported model into an empty folder.

    Args:
        classifier: the trained model.
        program: what :func:`traced` made of it.
        folder: the empty folder.
        form: what to write.
        texts: texts that 8-bit numbers are fitted to.

    Raises:
        ValueError: a package is missing, or the layers can't be converted.
    """
    source = classifier.folder.path
    classifier.tokenizer.save_pretrained(folder)
    for name in _COPIED:
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)
    with _quiet():
        if form.file_format == "onnx":
            _write_onnx(program, folder / ONNX_FILE, classifier, int8=form.int8)
        elif form.file_format == "openvino":
            inputs, calibration = list(classifier.folder.system.inputs), _calibration(classifier, texts)
            write_openvino(program, folder / OPENVINO_FILE, inputs, int8=form.int8, calibration=calibration)
        else:
            buffer = io.BytesIO()  # given a path, PyTorch aborts the process where the disk is full
            torch.export.save(program, buffer)
            (folder / PROGRAM_FILE).write_bytes(buffer.getbuffer())
    write_settings(classifier, folder, form.settings)


def write_settings(classifier: Classifier, folder: Path, more: Mapping[str, Any]) -> None:
    """Write the settings of an exported model, with the digests of all files that are there.

    Args:
        classifier: the trained model.
        folder: of the exported model.
        more: settings that the trained model has not.
    """
    settings = {**classifier.folder.settings, **more}
    name = classifier.folder.settings_file.name
    write_json(folder / name, {**settings, "digest": model_digests(folder, settings, name)})


def traced(classifier: Classifier) -> ExportedProgram:
    """Trace the model's layers on documents of different lengths; numbers of documents and tokens stay variable.

    Args:
        classifier: the trained model, in PyTorch.
    """
    assert isinstance(classifier.score, TorchScorer)
    batch = _batch(classifier, ["a", "b c d", "e f"])
    inputs = classifier.folder.system.inputs
    shapes = tuple(dict.fromkeys(inputs[name], torch.export.Dim.DYNAMIC) for name in inputs)
    tensors = tuple(getattr(batch, name) for name in inputs)
    layers = _Exported(classifier.score.network, batch, tuple(inputs)).eval()
    with _quiet(), torch.no_grad():
        return torch.export.export(layers, tensors, dynamic_shapes=(shapes,))


def _batch(classifier: Classifier, texts: Sequence[str]) -> Any:
    nothing = np.array([], dtype=np.int32)
    ids = classifier.token_ids(texts)
    return classifier.collate([Example(i, 0, np.array(text, dtype=np.int32), nothing) for i, text in enumerate(ids)])


def _calibration(classifier: Classifier, texts: Sequence[str]) -> list[dict[str, Any]]:
    """Return batches of one text each: there is no padding, whose states would stretch the ranges."""
    batches = (_batch(classifier, [text]) for text in texts[:_NUM_CALIBRATION])
    return [{name: getattr(batch, name).numpy() for name in classifier.folder.system.inputs} for batch in batches]


def _check_scores(classifier: Classifier, folder: Path, form: Form) -> None:
    """Refuse an exported model in full precision that does not score what the trained one does."""
    batch = _batch(classifier, ["a", "b c d", "e f " * 50, "g"])
    engine = open_exported(ModelFolder.open(str(folder)))
    with torch.inference_mode():
        ours, theirs = (classifier.rule.probabilities(score(batch)) for score in (classifier.score, engine))
    difference = (ours - theirs).abs().max().item()
    if not difference < _CLOSE:  # nor nan
        others = ", ".join(name for name in get_args(FileFormat) if name != form.file_format)
        raise ValueError(
            f"format={form.file_format!r}: probabilities of the exported model differ by {difference:.2g}, so that it "
            f"can't be used; try {others}"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings, logging and output within this block: the exporters report on their own internals only."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
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
