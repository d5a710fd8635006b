"""The prompt template of section 2.1: a text, m prompt tokens ``P``, and one mask slot for each of d levels.

What a backbone reads depends on its form:

- encoder: ``[CLS] text [SEP] P1..Pm [MASK]*d [SEP]``, or with slots first ``[CLS] [MASK]*d P1..Pm text [SEP]``;
- decoder: ``[BOS] text P1..Pm [MASK]*d``, where a slot attends to the ones before it;
- encoder-decoder: ``[CLS] text P1..Pm [SEP]``, and in the decoder ``[START] [MASK]*d``.

A slot may hold a token of its own, ``[SLOT]``, in place of ``[MASK]``.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from ptmt_lightning.backbones.families import Form
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils.checks import check_range
from ptmt_lightning.utils.tokens import vocabulary_size

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LARGEST = 2**24  # id or size in a saved template: larger than any vocabulary
SLOT_TOKEN = "[SLOT]"


def prompt_tokens(num_prompt_tokens: int) -> list[str]:
    """Return the names of the prompt tokens."""
    return [f"[P{i}]" for i in range(1, num_prompt_tokens + 1)]


def label_tokens(taxonomy: Taxonomy) -> list[str]:
    """Return the names of the label tokens, one a node, in node order."""
    return [f"[LABEL_{name}]" for name in taxonomy.names]


@dataclass(frozen=True)
class Template:
    """Token ids and sizes of the template: plain data, saved with a model."""

    form: Form
    prefix_ids: tuple[int, ...]  # tokens before the text
    separator_ids: tuple[int, ...]  # tokens between text and prompts; none where slots come first
    end_ids: tuple[int, ...]  # tokens at the end of the sequence
    mask_id: int
    pad_id: int
    prompt_ids: tuple[int, ...]  # the m prompt tokens
    first_label_id: int  # the V label tokens have consecutive ids
    level_sizes: tuple[int, ...]  # number of nodes on each level
    num_text_tokens: int  # ids below this are the tokenizer's own
    max_length: int  # longest sequence, in tokens
    slot_prefix_ids: tuple[int, ...] = ()  # tokens before the slots in the decoder of an encoder-decoder
    sentinel_ids: tuple[int, ...] = ()  # the tokens by which T5 replaces removed spans
    slots_first: bool = False  # whether slots, then prompts, stand before the text
    slot_id: int | None = None  # what slots hold; None for masks

    @classmethod
    def add_to(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        taxonomy: Taxonomy,
        *,
        num_prompt_tokens: int,
        max_length: int,
        form: Form = "encoder",
        decoder_start_id: int | None = None,
        slots_first: bool = False,
        slot_token: bool = False,
    ) -> Template:
        """Add the template's tokens to a tokenizer, in place, and return the template.

        The tokens are prompt and label tokens, and before them a mask token if the tokenizer has none, and a slot
        token if there is to be one.

        Args:
            tokenizer: tokenizer of the backbone.
            taxonomy: hierarchy of the labels.
            num_prompt_tokens: number m of prompt tokens.
            max_length: longest sequence, in tokens.
            form: form of the backbone.
            decoder_start_id: token that an encoder-decoder's decoder starts with; None for the padding token.
            slots_first: whether slots stand before the text; for encoders only.
            slot_token: whether slots hold a token of their own; for encoders only.

        Raises:
            ValueError: a bad number of prompt tokens, no room for a text within ``max_length``, or a tokenizer that
                lacks what the form needs, has the tokens already, or has ids without tokens.
        """
        check_range("model.num_prompt_tokens", num_prompt_tokens, 0, integer=True)
        num_text_tokens, vocabulary = vocabulary_size(tokenizer), tokenizer.get_vocab()
        sentinels = [vocabulary[name] for i in range(100) if (name := f"<extra_id_{i}>") in vocabulary]
        mask_id = tokenizer.mask_token_id
        if mask_id is None and sentinels:
            mask_id = sentinels[0]  # T5 has learned to write what belongs in the place of a sentinel
        new_mask = [] if mask_id is not None else ["[MASK]"]
        new_slot = [SLOT_TOKEN] if slot_token else []
        first_prompt_id = num_text_tokens + len(new_mask) + len(new_slot)
        bos_id, eos_id = tokenizer.bos_token_id, tokenizer.eos_token_id
        start_id, end_id = {
            "encoder": (tokenizer.cls_token_id, tokenizer.sep_token_id),
            "decoder": (eos_id if bos_id is None else bos_id, None),
            "encoder-decoder": (bos_id, eos_id),
        }[form]
        if form == "decoder" and start_id is None:
            raise ValueError(
                f"the tokenizer of {tokenizer.name_or_path!r} has neither a token for the beginning of a text nor one "
                "for its end; set its bos_token or eos_token"
            )
        end_ids = () if end_id is None else (end_id,)
        pad_id = eos_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        if decoder_start_id is None:
            decoder_start_id = pad_id
        template = cls(
            form=form,
            prefix_ids=() if start_id is None else (start_id,),
            separator_ids=end_ids if form == "encoder" and not slots_first else (),
            end_ids=end_ids,
            mask_id=num_text_tokens if mask_id is None else mask_id,
            pad_id=pad_id,
            prompt_ids=tuple(range(first_prompt_id, first_prompt_id + num_prompt_tokens)),
            first_label_id=first_prompt_id + num_prompt_tokens,
            level_sizes=taxonomy.level_sizes,
            num_text_tokens=num_text_tokens,
            max_length=max_length,
            slot_prefix_ids=(decoder_start_id,) if form == "encoder-decoder" else (),
            sentinel_ids=tuple(sentinels) if form == "encoder-decoder" else (),
            slots_first=slots_first,
            slot_id=first_prompt_id - 1 if slot_token else None,
        )
        if template.text_budget < 1:
            raise ValueError(
                f"backbone.max_length={max_length}: too small for the template, which takes {template.overhead} tokens "
                f"({num_prompt_tokens} prompt tokens, {template.num_levels} level masks, special tokens) and needs "
                f"at least 1 for the text; set it to {template.overhead + 1} or more, or lower model.num_prompt_tokens"
            )
        new = [*new_mask, *new_slot, *prompt_tokens(num_prompt_tokens), *label_tokens(taxonomy)]
        known = [token for token in new if token in vocabulary]
        if known:
            raise ValueError(
                f"the tokenizer of {tokenizer.name_or_path!r} already has template tokens such as {known[0]!r}; "
                "set backbone.name to the model that it was trained from"
            )
        if new_mask:
            tokenizer.add_special_tokens({"mask_token": new_mask[0]})
        tokenizer.add_tokens(new, special_tokens=True)
        ids = tokenizer.convert_tokens_to_ids(new)
        if ids != list(range(num_text_tokens, num_text_tokens + len(new))):
            raise ValueError(
                f"the tokenizer of {tokenizer.name_or_path!r} has {num_text_tokens - len(vocabulary)} unused ids "
                "between others, and gives new tokens ids that are in use; number its vocabulary without holes"
            )
        return template

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Template:
        """Return the template with these fields, as JSON holds them: with lists in place of tuples.

        Raises:
            ValueError: a field is of another type, or no id or size that a model has.
            TypeError: a field is missing or unknown.
        """
        for field in dataclasses.fields(cls):
            value = content.get(field.name, field.default)
            if field.name == "form":
                if value not in get_args(Form):
                    raise ValueError(f"template.form={value!r}: expected one of {', '.join(get_args(Form))}")
            elif field.type == "bool":
                if not isinstance(value, bool):
                    raise ValueError(f"template.{field.name}: expected true or false, got {type(value).__name__}")
            elif value is None and field.default is None:
                continue
            elif str(field.type).startswith("tuple"):
                if not isinstance(value, (list, tuple)) or len(value) > _LARGEST:
                    raise ValueError(f"template.{field.name}: expected a list, got {type(value).__name__}")
                for entry in value:
                    check_range(f"template.{field.name}", entry, 0, _LARGEST, integer=True)
            else:
                check_range(f"template.{field.name}", value, 0, _LARGEST, integer=True)
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in content.items()
        }
        template = cls(**fields)
        if template.form != "encoder" and (template.slots_first or template.slot_id is not None):
            raise ValueError(f"template.form={template.form!r}: expected no slots_first and no slot_id but of encoders")
        check_range("template.max_length", template.max_length, template.overhead + 1, _LARGEST, integer=True)
        return template

    def token_ids(self) -> list[int]:
        """Return the ids of all tokens of the template but those of labels."""
        several = (self.prefix_ids, self.separator_ids, self.end_ids, self.prompt_ids, self.slot_prefix_ids)
        return [self.mask_id, self.pad_id, *self.slot_ids, *itertools.chain(*several, self.sentinel_ids)]

    @property
    def num_levels(self) -> int:
        """Number d of levels, which is the number of slots."""
        return len(self.level_sizes)

    @property
    def overhead(self) -> int:
        """Number of tokens that are not text; m + d + 3 with an encoder."""
        fixed = len(self.prefix_ids) + len(self.separator_ids) + len(self.end_ids)
        if self.form == "encoder-decoder":  # its decoder holds the slots, and in training the text once more
            return fixed + max(len(self.prompt_ids), self.num_levels + 2)
        return fixed + len(self.prompt_ids) + self.num_levels

    @property
    def text_budget(self) -> int:
        """Highest number of text tokens; longer texts are cut, the rest of the template never is."""
        return self.max_length - self.overhead

    @property
    def slot_ids(self) -> list[int]:
        """Ids of the slots before any shows a label, one a level."""
        return [self.mask_id if self.slot_id is None else self.slot_id] * self.num_levels

    @property
    def ids_before_text(self) -> list[int]:
        """Ids of the tokens before the text."""
        inserted = [*self.slot_ids, *self.prompt_ids] if self.slots_first else []
        return [*self.prefix_ids, *inserted]

    @property
    def ids_after_text(self) -> list[int]:
        """Ids of the tokens that follow the text; an encoder-decoder's slots are in its decoder."""
        if self.slots_first:
            return list(self.end_ids)
        slots = [] if self.form == "encoder-decoder" else self.slot_ids
        return [*self.separator_ids, *self.prompt_ids, *slots, *self.end_ids]

    def prompt_places(self, text_lengths: Any) -> Any:
        """Return the position of the first prompt token of each document, ``[B]``.

        Args:
            text_lengths: numbers of text tokens, an integer array or tensor ``[B]``.
        """
        fixed = len(self.prefix_ids) + (self.num_levels if self.slots_first else len(self.separator_ids))
        return fixed + text_lengths * (not self.slots_first)

    def slot_places(self, text_lengths: Any) -> Any:
        """Return the position of the first slot of each document, ``[B]``, with an encoder or a decoder.

        Args:
            text_lengths: numbers of text tokens, an integer array or tensor ``[B]``.
        """
        offset = -self.num_levels if self.slots_first else len(self.prompt_ids)
        return self.prompt_places(text_lengths) + offset
