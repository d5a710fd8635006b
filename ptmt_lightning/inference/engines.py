"""Engines that compute the scores of a saved model: its layers in PyTorch, or an exported file.

Shape legend: ``B`` documents, ``V`` nodes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ptmt_lightning.backbones import Backbone, Pretrained
from ptmt_lightning.inference.model_folder import ONNX_FILE, PROGRAM_FILE, ModelFolder
from ptmt_lightning.models.ptmt.collator import PTMTBatch
from ptmt_lightning.models.ptmt.network import DocumentPrompts, label_logits, slot_states
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils.tokens import vocabulary_size

EXPORTED_INPUTS = ("input_ids", "attention_mask", "text_lengths", "positions")  # the fields that exported models read


class TorchScorer(torch.nn.Module):
    """The layers of a trained PTMT model in PyTorch; computes the logits ``[B, V]`` of a batch.

    Args:
        backbone: the trained language model, with its added tokens.
        taxonomy: taxonomy of the labels.
        document_prompts: the trained network for prompts of each document; None for shared prompts.
    """

    @classmethod
    def open(cls, folder: ModelFolder) -> tuple[TorchScorer, PreTrainedTokenizerBase]:
        """Load the layers and the tokenizer of a model that :class:`~ptmt_lightning.models.ptmt.module.PTMT` saved.

        Args:
            folder: description of the folder that ``PTMT.save_pretrained`` wrote.
        """
        path, settings, template, taxonomy = folder.path, folder.settings, folder.template, folder.taxonomy
        backbone, tokenizer, _ = Pretrained(name=str(path)).load([], whole=True)
        folder.check_tokenizer(tokenizer)
        if backbone.missing:
            lacking = ", ".join(backbone.missing[:3])
            raise ValueError(f"{path}: the weights lack {lacking}, which labels are scored with; restore the files")
        backbone.adopt_rows(vocabulary_size(tokenizer) - template.num_text_tokens)
        document_prompts = None
        try:
            if (path / "label_bias.safetensors").exists():
                bias_V = load_file(path / "label_bias.safetensors")["bias"]
                if bias_V.shape != (len(taxonomy),):
                    raise RuntimeError(f"bias of shape {tuple(bias_V.shape)} for {len(taxonomy)} labels")
                with torch.no_grad():
                    backbone.new_bias[-len(taxonomy) :] = bias_V
            if settings["prompts"] == "per_document":
                document_prompts = DocumentPrompts(backbone.new_rows.shape[1], template)
                document_prompts.load_state_dict(load_file(path / "prompts.safetensors"))
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise ValueError(
                f"{path}: label_bias.safetensors or prompts.safetensors does not fit the model "
                f"({' '.join(str(error).split())}); restore the files"
            ) from error
        return cls(backbone, taxonomy, document_prompts), tokenizer

    def __init__(self, backbone: Backbone, taxonomy: Taxonomy, document_prompts: DocumentPrompts | None) -> None:
        super().__init__()
        self.backbone, self.taxonomy, self.document_prompts = backbone, taxonomy, document_prompts

    def forward(self, batch: PTMTBatch) -> Tensor:
        """Return the logits ``[B, V]`` of a batch, which may be on another device than the weights."""
        device = self.backbone.new_rows.device
        moved: dict[str, Any] = {
            name: field.to(device) for name, field in batch._asdict().items() if isinstance(field, Tensor)
        }
        batch = batch._replace(**moved)
        return label_logits(self.backbone, self.taxonomy, slot_states(self.backbone, batch, self.document_prompts))


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

    def __call__(self, batch: PTMTBatch) -> Tensor:
        """Return the logits ``[B, V]`` of a batch on the CPU."""
        [logits] = self.session.run(None, {name: getattr(batch, name).numpy() for name in self.inputs})
        return torch.from_numpy(logits)


class ProgramScorer:
    """An exported model in a file of ``torch.export``, run by PyTorch on the CPU.

    Args:
        path: path of the file.
    """

    def __init__(self, path: Path) -> None:
        self.program = torch.export.load(path).module()

    def __call__(self, batch: PTMTBatch) -> Tensor:
        """Return the logits ``[B, V]`` of a batch on the CPU."""
        logits: Tensor = self.program(*(getattr(batch, name) for name in EXPORTED_INPUTS))
        return logits


def open_exported(folder: ModelFolder) -> OnnxScorer | ProgramScorer:
    """Return the engine that runs the model file in a folder that ``ptmt export`` wrote."""
    path = folder.path / ONNX_FILE
    if not path.exists():
        return ProgramScorer(folder.path / PROGRAM_FILE)
    scorer = OnnxScorer(path)
    num_labels = scorer.session.get_outputs()[0].shape[-1]
    if isinstance(num_labels, int) and num_labels != len(folder.taxonomy):
        raise ValueError(
            f"{path}: scores {num_labels} labels, taxonomy.json has {len(folder.taxonomy)}; restore the "
            "files, or export the model again"
        )
    return scorer
