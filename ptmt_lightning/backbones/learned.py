"""What a trained PTMT model has learnt beside its language model, set apart for a warm start.

Shape legend: ``E`` size of token embeddings, ``N`` tokens that the model has added to its language model, ``V`` labels.
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ptmt_lightning.decisions import LevelSoftmax, Sigmoid
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils.files import read_json_object
from ptmt_lightning.utils.tokens import vocabulary_size

if TYPE_CHECKING:
    from ptmt_lightning.backbones.backbone import Backbone

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Learned:
    """The tokens that a trained model has added to its language model.

    In this order: a mask token or none, a slot token or none, prompts, labels.

    Args:
        source: name of the model.
        taxonomy: hierarchy of its labels.
        decision: name of the decision that its scores are trained for.
        num_prompt_tokens: number of its prompt tokens.
        mask_row: row of its mask token; None if its language model had one.
        slot_row: row of its slot token; None if its slots hold masks.
        rows: input embeddings of the added tokens, ``[N, E]``.
        output_rows: output embeddings, ``[N, E]``; None where input and output embeddings share one matrix.
        bias: output biases, ``[N]``.
        document_prompts: parameters of the network for prompts of each document; None for shared prompts.
    """

    source: str
    taxonomy: Taxonomy
    decision: str
    num_prompt_tokens: int
    mask_row: int | None
    slot_row: int | None
    rows: Tensor
    output_rows: Tensor | None
    bias: Tensor
    document_prompts: Mapping[str, Tensor] | None


def tell_encoder_only(source: str) -> None:
    """Log that of a trained model nothing is taken but what reads texts."""
    rank_zero_only(log.info)("%s is a trained model: its encoder is taken, labels start anew", source)


def set_apart(
    backbone: Backbone, tokenizer: PreTrainedTokenizerBase, file: Callable[[str], Path | None], source: str
) -> PreTrainedTokenizerBase:
    """Move the tokens that a trained PTMT has added out of its language model, into ``backbone.learned``.

    Of a model that is not trained for labels, or by another system, nothing is changed.

    Args:
        backbone: the model, all tokens included.
        tokenizer: its tokenizer.
        file: returns the path of a file of the model, None if it has none of that name.
        source: name of the model.

    Returns:
        The tokenizer without the added tokens.

    Raises:
        ValueError: the parts of the model do not belong together.
    """
    taxonomy_file, settings_file = file("taxonomy.json"), file("ptmt.json")
    if taxonomy_file is None:
        return tokenizer
    if settings_file is None:
        tell_encoder_only(source)
        return tokenizer
    settings, taxonomy = read_json_object(settings_file), Taxonomy.from_json(taxonomy_file)
    size, num_prompts, slot_id = _sizes(settings, taxonomy, vocabulary_size(tokenizer), source)
    num_others = vocabulary_size(tokenizer) - size - num_prompts - len(taxonomy)
    bias_TN = backbone.output_bias
    bias_N = (
        backbone.token_embeddings.new_zeros(vocabulary_size(tokenizer) - size) if bias_TN is None else bias_TN[size:]
    )
    bias_N = bias_N.detach().clone()
    if bias_V := _tensors(file("label_bias.safetensors"), {"bias": (len(taxonomy),)}, source):
        bias_N[-len(taxonomy) :] = bias_V["bias"]
    if "decision" not in settings:  # written by versions before 0.2
        settings["decision"] = (LevelSoftmax if settings.get("single_label") else Sigmoid).name
    backbone.learned = Learned(
        source=source,
        taxonomy=taxonomy,
        decision=settings["decision"],
        num_prompt_tokens=num_prompts,
        mask_row=0 if num_others > (slot_id is not None) else None,
        slot_row=None if slot_id is None else slot_id - size,
        rows=backbone.token_embeddings[size:].detach().clone(),
        output_rows=None if backbone.is_tied else backbone.output_matrix[size:].detach().clone(),
        bias=bias_N,
        document_prompts=_tensors(file("prompts.safetensors"), {}, source),
    )
    backbone.trained_head &= bool(settings.get("trained_head", True))
    backbone.model.resize_token_embeddings(size, mean_resizing=False)
    return _without_added(tokenizer, size)


def _sizes(
    settings: Mapping[str, Any], taxonomy: Taxonomy, vocabulary: int, source: str
) -> tuple[int, int, int | None]:
    """Return the number of the language model's own tokens and of prompt tokens, and the id of the slot token.

    Raises:
        ValueError: settings, taxonomy and tokenizer contradict each other.
    """
    template = settings.get("template")
    template = template if isinstance(template, dict) else {}
    size, first, prompts = (template.get(name) for name in ("num_text_tokens", "first_label_id", "prompt_ids"))
    slot_id = template.get("slot_id")  # versions before 0.2 have none
    fits = (
        isinstance(size, int)
        and isinstance(first, int)
        and isinstance(prompts, list)
        and (slot_id is None or slot_id == first - len(prompts) - 1)
        and 0 <= first - len(prompts) - size - (slot_id is not None) <= 1
        and size > 0
        and first + len(taxonomy) == vocabulary
        and settings.get("taxonomy_fingerprint", taxonomy.fingerprint) == taxonomy.fingerprint
    )
    if not fits:
        raise ValueError(
            f"backbone.name={source!r}: ptmt.json, taxonomy.json and the tokenizer do not belong together; restore the "
            "folder, or remove taxonomy.json and ptmt.json to use it as a plain language model"
        )
    assert isinstance(size, int)
    assert isinstance(prompts, list)
    return size, len(prompts), slot_id


def _tensors(path: Path | None, shapes: Mapping[str, tuple[int, ...]], source: str) -> dict[str, Tensor] | None:
    """Return the tensors of a file, if there is one, after a look at the shapes of those that are named.

    Raises:
        ValueError: it is no such file, or a tensor has another shape.
    """
    if path is None:
        return None
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"backbone.name={source!r}: {path.name}: {error}; restore the file") from error
    wrong = [name for name, shape in shapes.items() if name not in tensors or tensors[name].shape != torch.Size(shape)]
    if wrong:
        raise ValueError(
            f"backbone.name={source!r}: {path.name}: no {wrong[0]} of {shapes[wrong[0]]}; restore the file"
        )
    return tensors


def _without_added(tokenizer: PreTrainedTokenizerBase, size: int) -> PreTrainedTokenizerBase:
    """Return a tokenizer without the tokens from id ``size`` on; no tokenizer can remove tokens of its own."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        path, config_path = Path(folder, "tokenizer.json"), Path(folder, "tokenizer_config.json")
        content, config = read_json_object(path), read_json_object(config_path)
        content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < size]
        if tokenizer.mask_token_id is not None and tokenizer.mask_token_id >= size:
            config.pop("mask_token", None)
        path.write_text(json.dumps(content), encoding="utf-8")
        config_path.write_text(json.dumps(config), encoding="utf-8")
        plain: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    plain.name_or_path = tokenizer.name_or_path
    return plain
