"""Engines that compute the scores of a saved model: its layers in PyTorch, or an exported file.

Shape legend: ``B`` documents, ``V`` nodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ptmt_lightning.backbones import Backbone, Pretrained
from ptmt_lightning.inference.model_folder import ONNX_FILE, OPENVINO_FILE, PROGRAM_FILE, ModelFolder
from ptmt_lightning.utils.checks import shortened


class TorchScorer(torch.nn.Module):
    """The layers of a trained model in PyTorch; computes the logits ``[B, V]`` of a batch.

    Args:
        network: the trained layers.
        backbone: the trained language model, which is a part of them.
    """

    @classmethod
    def open(cls, folder: ModelFolder) -> tuple[TorchScorer, PreTrainedTokenizerBase]:
        """Load the layers and the tokenizer of a saved model.

        Args:
            folder: description of the folder that ``save_pretrained`` of its system wrote.

        Raises:
            ValueError: a file of the folder does not fit the others.
        """
        backbone, tokenizer, _ = Pretrained(name=str(folder.path), max_length=folder.system.max_length).load(
            [], whole=True
        )
        folder.check_tokenizer(tokenizer)
        if backbone.missing:
            lacking = ", ".join(backbone.missing[:3])
            raise ValueError(
                f"{folder.path}: the weights lack {lacking}, which labels are scored with; restore the files"
            )
        return cls(folder.system.network(folder.path, backbone, tokenizer, folder.taxonomy), backbone), tokenizer

    def __init__(self, network: torch.nn.Module, backbone: Backbone) -> None:
        super().__init__()
        self.network, self.backbone = network, backbone

    def forward(self, batch: Any) -> Tensor:
        """Return the logits ``[B, V]`` of a batch, which may be on another device than the weights."""
        device = self.backbone.token_embeddings.device
        moved = {name: field.to(device) for name, field in batch._asdict().items() if isinstance(field, Tensor)}
        logits: Tensor = self.network(batch._replace(**moved))
        return logits


class OnnxScorer:
    """An exported model in an ONNX file, run by onnxruntime on as many CPU threads as PyTorch would take.

    Args:
        path: path of the file.

    Raises:
        ValueError: onnxruntime is not installed, or the file is none that it can run.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime  # comes with the extra "onnx"
        except ImportError as error:
            raise ValueError(
                f"{path} needs the package onnxruntime; install it with pip install 'ptmt_lightning[onnx]'"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"],
                disabled_optimizers=["SkipLayerNormFusion"],  # its result takes three times as long on CPUs
            )  # fmt: skip
        except Exception as error:  # onnxruntime's own kinds have no base in common
            raise ValueError(f"{path}: not an ONNX file that can be run ({error}); export the model again") from error
        self.inputs = [given.name for given in self.session.get_inputs()]
        self.num_labels = self.session.get_outputs()[0].shape[-1]

    def __call__(self, batch: Any) -> Tensor:
        """Return the logits ``[B, V]`` of a batch on the CPU."""
        [logits] = self.session.run(None, {name: getattr(batch, name).numpy() for name in self.inputs})
        return torch.from_numpy(logits)


class OpenVinoScorer:
    """An exported model in OpenVINO's format, run on as many CPU threads as PyTorch would take.

    The format is data: layers with code of their own would need an extension of OpenVINO, and none is loaded.

    Args:
        path: path of the file with the layers; the one with the weights lies beside it.
        bfloat16: compute in bfloat16, if this CPU can, what is not in 8 bits.

    Raises:
        ValueError: openvino is not installed, or the files are none that it can run.
    """

    def __init__(self, path: Path, *, bfloat16: bool = False) -> None:
        try:
            import openvino  # comes with the extra "openvino"
            from openvino.frontend import FrontEndManager
        except ImportError as error:
            raise ValueError(
                f"{path} needs the package openvino; install it with pip install 'ptmt_lightning[openvino]'"
            ) from error
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",  # else it would choose by the machine
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # processes that share cores would be bound to the same ones
        }
        reader = FrontEndManager().load_by_framework("ir")  # left to choose, it would try those of other formats
        try:
            self.model = openvino.Core().compile_model(reader.convert(reader.load(str(path))), "CPU", options)
        except RuntimeError as error:  # the base of its own kinds
            reason = shortened((str(error).split("\n\n")[0].splitlines() or ["no reason given"])[-1])
            raise ValueError(
                f"{path}: not an OpenVINO file that can be run ({reason}); export the model again"
            ) from error
        self.inputs = [port.any_name for port in self.model.inputs]
        width = self.model.output(0).partial_shape[-1]
        self.num_labels = width.get_length() if width.is_static else None

    def __call__(self, batch: Any) -> Tensor:
        """Return the logits ``[B, V]`` of a batch on the CPU."""
        [logits] = self.model({name: getattr(batch, name).numpy() for name in self.inputs}, share_inputs=True).values()
        return torch.from_numpy(logits)


def computes_bfloat16() -> bool:
    """Return whether OpenVINO is there and computes in bfloat16 on this CPU."""
    try:
        import openvino
    except ImportError:
        return False
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class ProgramScorer:
    """An exported model in a file of ``torch.export``, run by PyTorch on the CPU.

    Args:
        path: path of the file.
        inputs: the fields of a batch that it takes.
    """

    def __init__(self, path: Path, inputs: Iterable[str]) -> None:
        self.program, self.inputs = torch.export.load(path).module(), tuple(inputs)

    def __call__(self, batch: Any) -> Tensor:
        """Return the logits ``[B, V]`` of a batch on the CPU."""
        logits: Tensor = self.program(*(getattr(batch, name) for name in self.inputs))
        return logits


def open_exported(folder: ModelFolder) -> OnnxScorer | OpenVinoScorer | ProgramScorer:
    """Return the engine that runs the model file in a folder that ``ptmt export`` wrote.

    Raises:
        ValueError: the file can't be run, or is not of this model.
    """
    path = next(
        folder.path / name for name in (ONNX_FILE, OPENVINO_FILE, PROGRAM_FILE) if (folder.path / name).exists()
    )
    if path.name == PROGRAM_FILE:
        return ProgramScorer(path, folder.system.inputs)
    scorer: OnnxScorer | OpenVinoScorer
    if path.name == OPENVINO_FILE:
        scorer = OpenVinoScorer(path, bfloat16=folder.settings.get("bfloat16", False))
    else:
        scorer = OnnxScorer(path)
    remedy = "restore the files, or export the model again"
    if unknown := sorted(set(scorer.inputs) - folder.system.inputs.keys()):
        raise ValueError(f"{path}: reads {unknown[0]!r}, of {', '.join(folder.system.inputs)}; {remedy}")
    if isinstance(scorer.num_labels, int) and scorer.num_labels != len(folder.taxonomy):
        raise ValueError(
            f"{path}: scores {scorer.num_labels} labels, taxonomy.json has {len(folder.taxonomy)}; {remedy}"
        )
    return scorer
