"""The ``model/`` folder of a run, or a copy of it on a hub: finds, checks and describes it, without its weights."""

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

# The files of a model in a hub's repository; whatever else is there is neither downloaded nor replaced.
WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", f"{ONNX_FILE}*", PROGRAM_FILE]
_SETTINGS = ("template", "prompts", "thresholds", "prune", "coherent", "decision")


class ModelFolder(NamedTuple):
    """The description of a saved model, read from its folder."""

    path: Path
    settings: dict[str, Any]  # content of ptmt.json
    template: Template
    rule: DecisionRule  # holds thresholds and taxonomy

    @classmethod
    def open(cls, name: str) -> ModelFolder:
        """Find a saved model, after a download if it is on a hub, and read its description.

        Args:
            name: path of the folder, or name of the model on the hub.

        Raises:
            ValueError: there is no model of that name, or it is not one that this version of the package can read.
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
        """Taxonomy of the labels that the model predicts."""
        return self.rule.taxonomy

    @property
    def is_exported(self) -> bool:
        """Whether ``ptmt export`` wrote the folder."""
        return any((self.path / name).exists() for name in (ONNX_FILE, PROGRAM_FILE))

    def device(self, device: str | torch.device | None, precision: Precision) -> torch.device:
        """Return the device to run the model on, after checks that it is there and goes with the model.

        Args:
            device: the device that the user wants; None for a GPU where there is one, else the CPU.
            precision: the number format that the user wants; it is checked only.

        Raises:
            ValueError: the device is not there, the precision is unknown, or an exported model can't follow the choice.
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
        except (RuntimeError, AssertionError) as error:  # PyTorch raises either for a device that is not there
            raise ValueError(f"device={device!r}: not there ({str(error).splitlines()[0]}); leave it out") from error
        return torch.device(device)


def _path(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download  # imported only here, as local folders do not need it

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
    if "single_label" in settings:  # written by versions before 0.2
        settings["decision"] = (LevelSoftmax if settings.pop("single_label") else Sigmoid).name
    missing = [key for key in _SETTINGS if key not in settings]
    if missing or "form" not in settings["template"]:
        raise ValueError(
            f"{path} was written by {_version_of(settings)} and lacks what this one needs "
            f"({', '.join(missing) or 'template.form'}); use that version, or train again"
        )
    return settings


def _is_settings(path: Path) -> bool:
    """Return whether a file holds the settings of a saved system of this package."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(content, dict) and {"thresholds", "version"} <= content.keys()


def _version_of(settings: Mapping[str, Any]) -> str:
    return f"version {settings.get('version')} of ptmt_lightning"
