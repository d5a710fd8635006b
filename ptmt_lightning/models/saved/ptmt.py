"""The system ``ptmt``, saved: its template, and its label tokens in the backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ptmt_lightning.models.ptmt.collator import PTMTCollator
from ptmt_lightning.models.ptmt.network import DocumentPrompts, PTMTNetwork
from ptmt_lightning.models.ptmt.template import SLOT_TOKEN, Template, label_tokens, prompt_tokens
from ptmt_lightning.models.saved.system import Collate, SavedSystem
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils.checks import shortened
from ptmt_lightning.utils.tokens import vocabulary_size

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ptmt_lightning.backbones import Backbone


@dataclass(frozen=True)
class SavedPTMT(SavedSystem):
    """What :class:`~ptmt_lightning.models.ptmt.module.PTMT` saves.

    Args:
        template: that texts are put into.
        per_document: whether prompts depend on the text.
    """

    inputs: ClassVar[Mapping[str, Sequence[int]]] = {
        "input_ids": (0, 1),
        "attention_mask": (0, 1),
        "text_lengths": (0,),
        "positions": (0,),
    }
    template: Template
    per_document: bool

    @classmethod
    def read(cls, settings: Mapping[str, Any], taxonomy: Taxonomy) -> Self:
        """Return the system that settings describe.

        Raises:
            KeyError: a setting is missing.
            ValueError: a setting is out of range.
            TypeError: a field of the template is missing or unknown.
        """
        template, prompts = settings["template"], settings["prompts"]
        if not isinstance(template, dict) or "form" not in template:
            raise KeyError("template.form")
        if prompts not in ("shared", "per_document"):
            raise ValueError(f"prompts={shortened(repr(prompts))}: expected shared or per_document")
        return cls(Template.from_json(template), prompts == "per_document")

    @property
    def max_length(self) -> int:  # type: ignore[override]
        """Longest sequence, in tokens."""
        return self.template.max_length

    @property
    def text_budget(self) -> int:
        """Highest number of tokens of a text; longer texts are cut."""
        return self.template.text_budget

    @property
    def kept_from_export(self) -> str | None:
        """What keeps the layers from being exported, as the end of "the model is ..."; None if nothing does."""
        if self.template.form != "encoder-decoder":
            return None
        return "an encoder-decoder, which can't be exported yet; encoders and decoders can"

    def fits(self, taxonomy: Taxonomy) -> bool:
        """Return whether the settings are for a taxonomy of such levels."""
        return self.template.level_sizes == taxonomy.level_sizes

    def check_tokenizer(self, folder: Path, tokenizer: PreTrainedTokenizerBase, taxonomy: Taxonomy) -> None:
        """Refuse a tokenizer whose label, prompt and slot tokens are not those that the model was saved with.

        Raises:
            ValueError: names the first token that differs.
        """
        slots = [] if self.template.slot_id is None else [SLOT_TOKEN]
        expected = [*slots, *prompt_tokens(len(self.template.prompt_ids)), *label_tokens(taxonomy)]
        first = self.template.first_label_id - len(self.template.prompt_ids) - len(slots)
        # Before the first token there is none.
        found = tokenizer.convert_ids_to_tokens(list(range(first, first + len(expected)))) if first >= 0 else [None]
        problems = [
            f"token {first + i} is {shortened(b)!r}, not {shortened(a)!r}"
            for i, (a, b) in enumerate(zip(expected, found, strict=False))
            if a != b
        ]
        size = first + len(expected)
        if not problems and slots and self.template.slot_id != first:
            problems = [f"the slots hold token {self.template.slot_id}, not {first}"]
        ids = [token for token in self.template.token_ids() if token >= size]
        if not problems and ids:
            problems = [f"the template has token {ids[0]}, of {size}"]
        if not problems and vocabulary_size(tokenizer) != size:
            problems = [f"{vocabulary_size(tokenizer)} tokens, not {size}"]
        if problems:
            raise ValueError(
                f"{folder}: tokenizer and taxonomy do not belong together ({problems[0]}), so that labels would "
                "shift; restore tokenizer.json and ptmt.json"
            )

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Collate:
        """Return a function that makes batches of tokenised texts."""
        return PTMTCollator(self.template, mlm_probability=0.0, p_label=1.0, mlm_slots=False, seed=0)

    def network(
        self, folder: Path, backbone: Backbone, tokenizer: PreTrainedTokenizerBase, taxonomy: Taxonomy
    ) -> PTMTNetwork:
        """Return the trained layers.

        Raises:
            ValueError: a file of the folder does not fit the model.
        """
        backbone.adopt_rows(vocabulary_size(tokenizer) - self.template.num_text_tokens)
        document_prompts = None
        try:
            if (folder / "label_bias.safetensors").exists():
                bias_V = load_file(folder / "label_bias.safetensors")["bias"]
                if bias_V.shape != (len(taxonomy),):
                    raise RuntimeError(f"bias of shape {tuple(bias_V.shape)} for {len(taxonomy)} labels")
                with torch.no_grad():
                    backbone.new_bias[-len(taxonomy) :] = bias_V
            if self.per_document:
                document_prompts = DocumentPrompts(backbone.new_rows.shape[1], self.template)
                document_prompts.load_state_dict(load_file(folder / "prompts.safetensors"))
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise ValueError(
                f"{folder}: label_bias.safetensors or prompts.safetensors does not fit the model "
                f"({' '.join(str(error).split())}); restore the files"
            ) from error
        return PTMTNetwork(backbone, taxonomy, document_prompts)
