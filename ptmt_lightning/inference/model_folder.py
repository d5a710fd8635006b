"""The ``model/`` folder of a run, or a copy of it on a hub: found, checked and described, without its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch

from ptmt_lightning.decisions import DecisionRule, LevelSoftmax, Sigmoid
from ptmt_lightning.models.ptmt.template import Template
from ptmt_lightning.taxonomy import Taxonomy

ONNX_FILE, PROGRAM_FILE = "model.onnx", "model.pt2"
Precision = Literal["float32", "bfloat16", "float16"]

WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", f"{ONNX_FILE}*", PROGRAM_FILE]  # of a hub's repository
_SETTINGS = ("template", "prompts", "thresholds", "prune", "coherent", "decision")


class ModelFolder(NamedTuple):
    """What a folder says about its model."""

    path: Path
    settings: dict[str, Any]  # of ptmt.json
    template: Template
    rule: DecisionRule  # thresholds, taxonomy and all

    @classmethod
    def open(cls, name: str) -> ModelFolder:
        """Find a folder, or a copy of a hub's.

        Raises:
            ValueError: nothing under that name, or not a PTMT model of this package.
        """
        path = _path(name)
        settings = _settings(path, name)
        taxonomy = Taxonomy.from_json(path / "taxonomy.json")
        try:
            rule = DecisionRule.from_json(settings, taxonomy)
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}; use {_version_of(settings)}, which wrote it") from error
        return cls(path, settings, Template.from_json(settings["template"]), rule)

    @property
    def taxonomy(self) -> Taxonomy:
        """The labels that the model knows."""
        return self.rule.taxonomy

    @property
    def is_exported(self) -> bool:
        """Whether ``ptmt export`` made it."""
        return any((self.path / name).exists() for name in (ONNX_FILE, PROGRAM_FILE))

    def device(self, device: str | torch.device | None, precision: Precision) -> torch.device:
        """Where the model is to run: as said, or else a GPU where there is one.

        Raises:
            ValueError: a device that is not there, an unknown precision, either for an exported model.
        """
        if precision not in get_args(Precision):
            raise ValueError(f"precision={precision!r}: expected 'float32', 'bfloat16' or 'float16'")
        if self.is_exported:
            if precision != "float32" or torch.device(device or "cpu").type != "cpu":
                raise ValueError(
                    f"{self.path}: an exported model runs on the CPU as it is; leave out device and precision"
                )
            return torch.device("cpu")
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:  # what PyTorch raises where there is none
            raise ValueError(f"device={device!r}: not there ({str(error).splitlines()[0]}); leave it out") from error
        return torch.device(device)


def _path(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download  # only where a hub is asked

    try:
        return Path(snapshot_download(name, allow_patterns=WANTED))
    except (OSError, ValueError) as error:
        raise ValueError(f"{name!r} is neither a folder nor a model of the hub: {error}") from error


def _settings(folder: Path, name: str) -> dict[str, Any]:
    path = folder / "ptmt.json"
    if not path.exists():
        below = folder / "model" / "ptmt.json"
        other = [file.stem for file in folder.glob("*.json") if _is_settings(file)]
        hint = "; expected the model/ folder of a PTMT run"
        if below.exists():
            hint = f"; did you mean {folder / 'model'}?"
        elif other:
            hint = f": it is of model={other[0]}, which is there for comparison; expected one of model=ptmt"
        raise ValueError(f"{name!r} has no ptmt.json{hint}")
    settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if "single_label" in settings:  # versions before 0.2
        settings["decision"] = (LevelSoftmax if settings.pop("single_label") else Sigmoid).name
    missing = [key for key in _SETTINGS if key not in settings]
    if missing or "form" not in settings["template"]:
        raise ValueError(
            f"{path} was written by {_version_of(settings)} and lacks what this one needs "
            f"({', '.join(missing) or 'template.form'}); use that version, or train again"
        )
    return settings


def _is_settings(path: Path) -> bool:
    """Return whether a file holds the settings that a system of this package saves."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(content, dict) and {"thresholds", "version"} <= content.keys()


def _version_of(settings: Mapping[str, Any]) -> str:
    return f"version {settings.get('version')} of ptmt_lightning"
