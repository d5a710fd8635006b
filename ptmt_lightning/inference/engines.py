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
from ptmt_lightning.inference.model_folder import ONNX_FILE, PROGRAM_FILE, ModelFolder


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

    def __call__(self, batch: Any) -> Tensor:
        """Return the logits ``[B, V]`` of a batch on the CPU."""
        [logits] = self.session.run(None, {name: getattr(batch, name).numpy() for name in self.inputs})
        return torch.from_numpy(logits)


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


def open_exported(folder: ModelFolder) -> OnnxScorer | ProgramScorer:
    """Return the engine that runs the model file in a folder that ``ptmt export`` wrote."""
    path = folder.path / ONNX_FILE
    if not path.exists():
        return ProgramScorer(folder.path / PROGRAM_FILE, folder.system.inputs)
    scorer = OnnxScorer(path)
    num_labels = scorer.session.get_outputs()[0].shape[-1]
    if isinstance(num_labels, int) and num_labels != len(folder.taxonomy):
        raise ValueError(
            f"{path}: scores {num_labels} labels, taxonomy.json has {len(folder.taxonomy)}; restore the "
            "files, or export the model again"
        )
    return scorer
