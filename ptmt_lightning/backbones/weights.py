"""A model's weights, compared with its configuration name by name: what does not fit is refused, never random."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import PretrainedConfig, PreTrainedModel

from ptmt_lightning.backbones.families import Family
from ptmt_lightning.utils.checks import shortened
from ptmt_lightning.utils.files import read_json_object

log = logging.getLogger(__name__)

# What wrappers of training put before the names of a model's tensors.
_WRAPPERS = {
    "0", "_orig_mod", "auto_model", "backbone", "base_model", "encoder", "model", "module", "net", "network",
    "transformer",
}  # fmt: skip
# Heads and buffers of checkpoints that were saved for another task: they may be there, and are not read.
_OTHER_HEADS = re.compile(
    r"(^|\.)(pooler|classifier|pre_classifier|score|qa_outputs|seq_relationship|sop_classifier|discriminator_predictions|"
    r"classification_head|position_ids|embed_positions_ids|token_type_ids|inv_freq|mask_emb)(\.|$)"
)
_FLOATS = {"F64", "F32", "F16", "BF16"}  # names of number formats in safetensors files
_SHOWN = 3  # names in a message
# Larger numbers than in any published model: a broken or hostile config.json must not fill the memory.
_MOST_LAYERS, _MOST_OF_A_SIZE = 1000, 2**24
_SPARE_PARAMETERS = 2**26  # a model may have so many more than bytes in its files, such as those of a new head


class MisfitError(ValueError):
    """A model's configuration has sizes that no model has, or its weights do not fit it."""


def check_folder(name: str) -> None:
    """Refuse a local folder that lacks a part of a model, before Transformers looks for it on a hub.

    Raises:
        ValueError: names the missing part.
    """
    folder = Path(name)
    if not folder.is_dir():
        return
    for file in ("config.json", "tokenizer_config.json"):
        if (folder / file).exists():
            try:
                read_json_object(folder / file)
            except ValueError as error:
                raise ValueError(f"backbone.name={name!r}: {error}") from None
    wanted = {
        "config.json": ["config.json"],
        "weights": ["*.safetensors", "pytorch_model*.bin"],
        "tokenizer": ["tokenizer.json", "vocab.txt", "vocab.json", "*.model"],
    }
    for part, patterns in wanted.items():
        if not any(path for pattern in patterns for path in folder.glob(pattern)):
            raise ValueError(
                f"backbone.name={name!r}: the folder has no {part} ({' or '.join(patterns)}); save it there with "
                "save_pretrained of the model and of the tokenizer"
            )


def check_sizes(config: PretrainedConfig, name: str) -> None:
    """Refuse a configuration with sizes that no model has, before anything of its size is made.

    Raises:
        MisfitError: names the key and the value.
    """
    for key, value in _numbers(config.to_dict()):
        most = _MOST_LAYERS if re.search(r"(^|_)layers?$", key) else _MOST_OF_A_SIZE
        if value < 0 and re.search(r"(^|_)(layers?|heads|size)$", key):
            raise MisfitError(
                f"backbone.name={name!r}: {key}={value} in config.json: expected at least 0; the file is damaged"
            )
        if not abs(value) <= most and re.search(r"layer|size|dim|heads|position|vocab|num_|d_model|d_ff|d_kv", key):
            raise MisfitError(
                f"backbone.name={name!r}: {key}={value} in config.json: expected at most {most}; the file is "
                "damaged, or not of a language model"
            )


def check_parameters(auto_class: Any, config: PretrainedConfig, name: str) -> None:
    """Refuse a configuration of a local folder that describes far more parameters than its files can hold.

    The model is made without memory for its parameters.

    Raises:
        MisfitError: names the number of parameters and the size of the files.
    """
    files = [file for pattern in ("*.safetensors", "*.bin") for file in Path(name).glob(pattern)]
    if not files:  # of a hub
        return
    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in auto_class.from_config(copy.deepcopy(config)).parameters())
    most = _SPARE_PARAMETERS + 2 * sum(file.stat().st_size for file in files)
    if size > most:
        raise MisfitError(
            f"backbone.name={name!r}: config.json describes {size:,} parameters, far more than the weights hold "
            f"(at most {most:,}); the file is damaged, or of another model"
        )


def _numbers(content: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of plain content, with the name of the setting that each belongs to."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _numbers(value, str(name))
    elif isinstance(content, (list, tuple)):
        for value in content:
            yield from _numbers(value, key)
    elif isinstance(content, (int, float)) and not isinstance(content, bool):
        yield key, content


def load_weights(
    auto_class: Any, name: str, config: PretrainedConfig, family: Family, **options: Any
) -> tuple[PreTrainedModel, list[str]]:
    """Open a model; every tensor outside of its head must be in its files, with its shape, and nothing else.

    Names that all begin with a wrapper's prefix, such as ``module.``, are read without it, and the log says so.

    Args:
        auto_class: of Transformers, for the family's form.
        name: hub name or folder.
        config: of the model, its sizes checked.
        family: of the model, which says what its head is.
        options: of ``from_pretrained``.

    Returns:
        The model, and the names of the tensors of its head that are not in the files, which are new.

    Raises:
        MisfitError: lists what is missing, unexpected or of another shape, with the likely reason.
    """
    _check_files(Path(name), name)
    model, info = auto_class.from_pretrained(
        name, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )  # fmt: skip
    problems = _problems(info, family)
    prefix = _shared_prefix(info, model.base_model_prefix)
    is_wrapper = set(prefix.strip(".").split(".")) <= _WRAPPERS
    if problems and is_wrapper and (tensors := _read(Path(name))) is not None:
        stripped = {key.removeprefix(prefix): value for key, value in tensors.items()}
        model, info = type(model).from_pretrained(
            None, config=config, state_dict=stripped, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
        model.name_or_path = name
        problems = _problems(info, family)
        if not problems:
            log.warning("%s: the names of its tensors begin with %r, which is left out", name, prefix)
    broken = [key for key, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    if broken:
        raise MisfitError(
            f"backbone.name={name!r}: {len(broken)} tensors hold values that are no finite numbers ({_shown(broken)}); "
            "restore the weights"
        )
    if problems:
        hint = f"save them without {prefix!r} before their names" if prefix else "set backbone.name to a whole folder"
        raise MisfitError(f"backbone.name={name!r}: the weights do not fit config.json: {'; '.join(problems)}; {hint}")
    return model, [key for key in info["missing_keys"] if _is_of_head(key, family)]


def _check_files(folder: Path, name: str) -> None:
    """Refuse a local folder whose weights are elsewhere, or are numbers that Transformers would cast to others.

    Raises:
        MisfitError: names the file, or the tensors.
    """
    index = folder / "model.safetensors.index.json"
    if index.exists():
        files = read_json_object(index).get("weight_map")
        names = set(files.values()) if isinstance(files, dict) else {None}
        wrong = [file for file in names if not isinstance(file, str) or not re.fullmatch(r"[^/\\]+\.safetensors", file)]
        if wrong or not names:
            raise MisfitError(
                f"backbone.name={name!r}: {index.name} names {shortened(repr(wrong[0])) if wrong else 'no file'}, "
                "expected safetensors files of the same folder; restore it"
            )
    cast = []
    for file in sorted(folder.glob("model*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            cast += [key for key in tensors.keys() if tensors.get_slice(key).get_dtype() not in _FLOATS]  # noqa: SIM118
    cast = [key for key in cast if not _OTHER_HEADS.search(key)]
    if cast:
        raise MisfitError(
            f"backbone.name={name!r}: {len(cast)} tensors are no floating-point numbers ({_shown(cast)}), as of a "
            "quantised model, which can't be used; save the weights in float32, bfloat16 or float16"
        )


def _problems(info: Mapping[str, Any], family: Family) -> list[str]:
    """Return what does not fit outside of heads, a line a kind."""
    missing = [key for key in info["missing_keys"] if not _is_of_head(key, family)]
    unexpected = [k for k in info["unexpected_keys"] if not _is_of_head(k, family) and not _OTHER_HEADS.search(k)]
    shapes = [f"{key} {tuple(found)} for {tuple(wanted)}" for key, found, wanted in info["mismatched_keys"]]
    kinds = {"not in the files": missing, "not in the model": unexpected, "of another shape": shapes}
    return [f"{len(keys)} tensors {kind} ({_shown(keys)})" for kind, keys in kinds.items() if keys]


def _is_of_head(key: str, family: Family) -> bool:
    """Return whether a tensor is of what scores tokens: the head's transform, the output matrix, its bias."""
    heads = [module for module in family.head_modules if module != "gelu"]
    outputs = ("cls.predictions", "predictions.", "lm_head.", "generator_lm_head", "vocab_projector", "decoder.bias",
               "lm_predictions", "head.", "final_logits_bias")  # fmt: skip
    return key.startswith((*heads, *outputs))


def _shared_prefix(info: Mapping[str, Any], base: str) -> str:
    """Return the prefix that all unexpected names have before the names that are missing; empty where there is none.

    Args:
        info: Transformers' report of a loading.
        base: what the model's own names begin with, which may be missing behind the prefix.
    """
    wanted = {name for key in info["missing_keys"] for name in (key, key.removeprefix(f"{base}."))}
    unexpected = [key for key in info["unexpected_keys"] if not _OTHER_HEADS.search(key)]
    prefixes = {key.removesuffix(name) for key in unexpected for name in wanted if key.endswith(f".{name}")}
    return min((p for p in prefixes if all(key.startswith(p) for key in unexpected)), key=len, default="")


def _read(folder: Path) -> dict[str, torch.Tensor] | None:
    """Return all tensors of a local folder's safetensors files; None of anything else."""
    files = sorted(folder.glob("*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()} if files else None


def _shown(keys: Iterable[str]) -> str:
    names = sorted(keys)
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
