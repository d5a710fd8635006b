"""Systems of an encoder and layers over it, saved: the encoder's folder, and ``head.safetensors``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from ptmt_lightning.models.networks.text import NUM_SPECIAL, TextCollator, TextNetwork
from ptmt_lightning.models.saved.system import Collate, SavedSystem
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils.checks import check_range, shortened
from ptmt_lightning.utils.files import check_file, read_json_object
from ptmt_lightning.utils.tokens import vocabulary_size

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ptmt_lightning.backbones import Backbone

_LONGEST = 2**24  # tokens of a sequence: more than any model reads


@dataclass(frozen=True)
class SavedEncoder(SavedSystem):
    """What a :class:`~ptmt_lightning.models.encoder.TextClassifier` saves: an encoder, and the layers over it.

    Args:
        layers: class of the layers.
        max_length: longest sequence, in tokens.
        num_nodes: number of nodes of the taxonomy.
        num_reserved: number of positions behind a text that the layers need.
        sizes: what the layers are made by.
    """

    inputs: ClassVar[Mapping[str, Sequence[int]]] = {"input_ids": (0, 1), "attention_mask": (0, 1)}
    layers: type[TextNetwork]
    max_length: int
    num_nodes: int
    num_reserved: int
    sizes: Mapping[str, Any]

    @classmethod
    def read(cls, layers: type[TextNetwork], settings: Mapping[str, Any], taxonomy: Taxonomy) -> Self:
        """Return the system that settings describe.

        Raises:
            KeyError: a setting is missing.
            ValueError: a setting is out of range.
        """
        layout = settings.get("layout", 1)
        if layout != layers.layout:
            raise ValueError(
                f"layout={shortened(repr(layout))}: the layers of this system have changed since (now "
                f"{layers.layout}), and would misread its parameters; open it with the version that wrote it, or train "
                "it anew"
            )
        reserved = layers.num_reserved(taxonomy)
        check_range("max_length", settings["max_length"], reserved + NUM_SPECIAL + 1, _LONGEST, integer=True)
        for name, most in layers.sizes.items():
            check_range(name, settings[name], 1, most, integer=True)
        sizes = {name: settings[name] for name in layers.sizes}
        for name, known in layers.choices.items():
            sizes[name] = settings.get(name, known[0])
            if sizes[name] not in known:
                raise ValueError(f"{name}={shortened(repr(sizes[name]))}: expected one of {', '.join(known)}")
        return cls(layers, settings["max_length"], len(taxonomy), reserved, sizes)

    @property
    def text_budget(self) -> int:
        """Highest number of tokens of a text; longer texts are cut."""
        return self.max_length - self.num_reserved - NUM_SPECIAL

    def fits(self, taxonomy: Taxonomy) -> bool:
        """Return True: the settings say nothing of levels."""
        return True

    def check_tokenizer(self, folder: Path, tokenizer: PreTrainedTokenizerBase, taxonomy: Taxonomy) -> None:
        """Refuse a tokenizer of another size than the encoder's, or without the tokens around a text.

        Raises:
            ValueError: says what differs.
        """
        size, found = read_json_object(folder / "config.json").get("vocab_size"), vocabulary_size(tokenizer)
        lacking = [name for name in ("cls", "sep", "pad", "mask") if getattr(tokenizer, f"{name}_token_id") is None]
        if found == size and not lacking:
            return
        problem = f"no {lacking[0]}_token" if lacking else f"{found} tokens, not {shortened(size)}"
        raise ValueError(
            f"{folder}: tokenizer and encoder do not belong together ({problem}), so that texts would be misread; "
            "restore tokenizer.json and config.json"
        )

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Collate:
        """Return a function that makes batches of tokenised texts."""
        longest = self.max_length - self.num_reserved
        return TextCollator(tokenizer, max_length=longest, num_nodes=self.num_nodes, multiple=1)

    def network(
        self, folder: Path, backbone: Backbone, tokenizer: PreTrainedTokenizerBase, taxonomy: Taxonomy
    ) -> TextNetwork:
        """Return the trained layers; what the file of their weights holds is compared before any memory is taken.

        Raises:
            ValueError: a file of the folder does not fit the model.
        """
        path = folder / "head.safetensors"
        check_file(path, "restore it, or download the folder again")
        model_type = backbone.model.config.model_type
        if backbone.family.form != "encoder" or model_type not in (self.layers.model_types or (model_type,)):
            raise ValueError(f"{folder}: no such head goes with model type {model_type!r}; restore config.json")
        assemble = partial(self.layers.assemble, backbone, tokenizer, taxonomy)
        try:
            with torch.device("meta"):
                wanted = _shapes(assemble(**self.sizes))
            with safe_open(path, framework="pt") as file:
                found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            if found != wanted:
                name = min(name for name in wanted | found if wanted.get(name) != found.get(name))
                raise RuntimeError(f"{name}: {found.get(name, 'missing')}, not {wanted.get(name, 'there')}")
            network = assemble(**self.sizes)
            network.load_state_dict(load_file(path), strict=False)  # the backbone has its weights
        except (OSError, SafetensorError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"{path}: does not fit the model ({shortened(' '.join(str(error).split()))}); restore the files"
            ) from error
        return network


def _shapes(network: TextNetwork) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors beside the backbone's, by name."""
    own = {name: value for name, value in network.state_dict().items() if not name.startswith("backbone.")}
    return {name: tuple(value.shape) for name, value in own.items()}
