"""The ``model/`` folder of a run, or a copy of it on a hub: finds, checks and describes it, without its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch

from ptmt_lightning.decisions import DecisionRule, LevelSoftmax, Sigmoid
from ptmt_lightning.models.saved.registry import SYSTEMS
from ptmt_lightning.models.saved.system import SavedSystem
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils.checks import shortened
from ptmt_lightning.utils.digests import changed_files, model_digests
from ptmt_lightning.utils.files import check_file, read_json_object
from ptmt_lightning.utils.hub import hub_source

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ONNX_FILE, OPENVINO_FILE, PROGRAM_FILE = "model.onnx", "openvino_model.xml", "model.pt2"
Precision = Literal["float32", "bfloat16", "float16"]

# The files of a model that are taken from a hub's repository, and sent there: none that can run code.
WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", f"{ONNX_FILE}*", OPENVINO_FILE, "openvino_model.bin"]


class ModelFolder(NamedTuple):
    """The description of a saved model, read from its folder."""

    path: Path
    settings_file: Path  # <system>.json
    settings: dict[str, Any]  # its content
    system: SavedSystem
    rule: DecisionRule  # holds thresholds and taxonomy

    @classmethod
    def open(cls, name: str) -> ModelFolder:
        """Find a saved model, after a download if it is on a hub, and read its description.

        Args:
            name: path of the folder, or name of the model on the hub, ``OWNER/NAME`` or ``OWNER/NAME@REVISION``.

        Raises:
            ValueError: there is no model of that name, or it is not one that this version of the package can read.
        """
        path = _path(name)
        file = _settings_file(path, name)
        settings = read_json_object(file)
        if "single_label" in settings:  # written by versions before 0.2
            settings["decision"] = (LevelSoftmax if settings.pop("single_label") else Sigmoid).name
        for part in ("config.json", "tokenizer.json"):
            check_file(path / part, "restore it, or download the folder again")
        saved = settings.get("digest")  # versions before 0.2 have none
        if saved is not None and (changed := changed_files(saved, model_digests(path, settings, file.name))):
            raise ValueError(
                f"{path}: {', '.join(changed)}: not as {_version_of(settings)} saved the model, so that scores would "
                "be others; restore what has changed, and remove what was not there"
            )
        taxonomy = Taxonomy.from_json(path / "taxonomy.json")
        try:
            system = SYSTEMS[file.stem](settings, taxonomy)
            rule = DecisionRule.from_json(settings, taxonomy)
            _check_flags(settings)
        except KeyError as error:
            raise ValueError(
                f"{file} was written by {_version_of(settings)} and lacks what this one needs ({error.args[0]}); use "
                "that version, or train again"
            ) from error
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{file}: {shortened(error)}; expected what {_version_of(settings)} wrote; update ptmt_lightning, or "
                "restore the file"
            ) from error
        folder = cls(path, file, settings, system, rule)
        folder._check_taxonomy()
        return folder

    def _check_taxonomy(self) -> None:
        """Refuse a taxonomy that is not the one that the model was saved with: labels would be those of others."""
        saved = self.settings.get("taxonomy_fingerprint", self.taxonomy.fingerprint)  # versions before 0.2 have none
        if saved != self.taxonomy.fingerprint or not self.system.fits(self.taxonomy):
            raise ValueError(
                f"{self.path / 'taxonomy.json'}: not the taxonomy that the model was saved with (nodes, their order or "
                "their parents have changed), so that labels would shift; restore the file"
            )

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Refuse a tokenizer that is not the one that the model was saved with.

        Raises:
            ValueError: says what differs.
        """
        self.system.check_tokenizer(self.path, tokenizer, self.taxonomy)

    def check_trust(self, *, trust: bool) -> None:
        """Refuse a folder of which only a file can be opened that may run code, unless the user trusts it.

        Raises:
            ValueError: says how to open the folder all the same.
        """
        if self.has_weights or any((self.path / name).exists() for name in (ONNX_FILE, OPENVINO_FILE)):
            return
        if not (self.path / PROGRAM_FILE).exists():
            pickled = next((file.name for file in sorted(self.path.glob("*.bin"))), None)
            found = f"its weights are pickled in {pickled}, which could run code" if pickled else "it has no weights"
            raise ValueError(
                f"{self.path}: {found}; expected model.safetensors, as save_pretrained of Transformers writes it"
            )
        if not trust:
            raise ValueError(
                f"{self.path}: {PROGRAM_FILE} can run code when it is opened; give --trust (trust=True) if you made it "
                "yourself, or open the model/ folder that it was exported from"
            )

    @property
    def has_weights(self) -> bool:
        """Whether the folder holds plain weights, which are taken before any exported file."""
        names = ("model.safetensors", "model.safetensors.index.json")  # what Transformers takes before pickled weights
        return any((self.path / name).exists() for name in names)

    @property
    def taxonomy(self) -> Taxonomy:
        """Taxonomy of the labels that the model predicts."""
        return self.rule.taxonomy

    @property
    def is_exported(self) -> bool:
        """Whether ``ptmt export`` wrote the folder: it holds an exported file, and no plain weights."""
        names = (ONNX_FILE, OPENVINO_FILE, PROGRAM_FILE)
        return not self.has_weights and any((self.path / name).exists() for name in names)

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
        return present_device(device)


def present_device(device: str | torch.device) -> torch.device:
    """Return a device of PyTorch.

    Raises:
        ValueError: the device is not there.
    """
    try:
        torch.empty(0, device=device).tolist()  # a device without storage has nothing to give
    except (RuntimeError, AssertionError) as error:  # PyTorch raises either for a device that is not there
        raise ValueError(f"device={device!r}: not there ({str(error).splitlines()[0]}); leave it out") from error
    return torch.device(device)


def _path(name: str) -> Path:
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    from huggingface_hub import snapshot_download  # imported only here, as local folders do not need it

    source = hub_source(name)
    try:
        path = Path(snapshot_download(source.name, allow_patterns=WANTED, **source.options))
    except (OSError, ValueError) as error:
        reason = source.hint or f": {' '.join(str(error).split())}"
        raise ValueError(f"{name!r} is neither a folder nor a model of the hub{reason}") from error
    source.tell()
    return path


def _settings_file(folder: Path, name: str) -> Path:
    found = [system for system in SYSTEMS if (folder / f"{system}.json").exists()]
    if len(found) == 1:
        return folder / f"{found[0]}.json"
    if found:
        raise ValueError(f"{name!r} has {' and '.join(f'{system}.json' for system in found)}; expected one of them")
    other = [file.stem for file in sorted(folder.glob("*.json")) if _is_settings(file)]
    hint = "; expected the model/ folder of a run"
    if any((folder / "model" / f"{system}.json").exists() for system in SYSTEMS):
        hint = f"; did you mean {folder / 'model'}?"
    elif other:
        hint = f": it is of model={other[0]}, which this version of ptmt_lightning can't open"
    raise ValueError(f"{name!r} has no {', '.join(f'{system}.json' for system in SYSTEMS)}{hint}")


def _check_flags(settings: Mapping[str, Any]) -> None:
    for name in ("prune", "coherent", "to_leaf", "bfloat16"):
        if not isinstance(value := settings.get(name, False), bool):  # not all of them are in every folder
            raise ValueError(f"{name}={shortened(repr(value))}: expected true or false")


def _is_settings(path: Path) -> bool:
    """Return whether a file holds the settings of a saved system of this package."""
    try:
        return {"thresholds", "version"} <= read_json_object(path).keys()
    except ValueError:
        return False


def _version_of(settings: Mapping[str, Any]) -> str:
    return f"version {settings.get('version')} of ptmt_lightning"
