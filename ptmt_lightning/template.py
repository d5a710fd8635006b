"""The prompt template of section 2.1, and the collator that fills and masks it.

``[CLS] text [SEP] P1..Pm [MASK]*d [SEP]``: prompt tokens ``P`` and one mask slot a level of the taxonomy.

Shape legend: ``B`` documents, ``L`` sequence length, ``D`` levels, ``V`` nodes, ``N`` masked text tokens in the batch,
``K`` positions of interest a document: its D slots, then its masked text tokens, padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ptmt_lightning.checks import check_range
from ptmt_lightning.data.cache import Example
from ptmt_lightning.taxonomy import Taxonomy


def prompt_tokens(num_prompt_tokens: int) -> list[str]:
    """Names of the prompt tokens."""
    return [f"[P{i}]" for i in range(1, num_prompt_tokens + 1)]


def label_tokens(taxonomy: Taxonomy) -> list[str]:
    """Names of the label tokens, one a node, in node order."""
    return [f"[LABEL_{name}]" for name in taxonomy.names]


@dataclass(frozen=True)
class Template:
    """Token ids and sizes of the template; plain data, saved with a model."""

    cls_id: int
    sep_id: int
    mask_id: int
    pad_id: int
    prompt_ids: tuple[int, ...]  # m
    first_label_id: int  # the V label tokens have consecutive ids
    level_sizes: tuple[int, ...]
    num_text_tokens: int  # ids below this are the tokenizer's own
    max_length: int

    @classmethod
    def add_to(
        cls, tokenizer: PreTrainedTokenizerBase, taxonomy: Taxonomy, *, num_prompt_tokens: int, max_length: int
    ) -> Template:
        """Add the prompt and label tokens to the tokenizer, in place.

        Raises:
            ValueError: a bad number of prompt tokens, or no room for a text within ``max_length``.
        """
        check_range("model.num_prompt_tokens", num_prompt_tokens, 0, integer=True)
        num_text_tokens = len(tokenizer)
        template = cls(
            cls_id=tokenizer.cls_token_id,
            sep_id=tokenizer.sep_token_id,
            mask_id=tokenizer.mask_token_id,
            pad_id=tokenizer.pad_token_id,
            prompt_ids=tuple(range(num_text_tokens, num_text_tokens + num_prompt_tokens)),
            first_label_id=num_text_tokens + num_prompt_tokens,
            level_sizes=taxonomy.level_sizes,
            num_text_tokens=num_text_tokens,
            max_length=max_length,
        )
        if template.text_budget < 1:
            raise ValueError(
                f"backbone.max_length={max_length}: too small for the template, which takes {template.overhead} tokens "
                f"({num_prompt_tokens} prompt tokens, {template.num_levels} level masks, 3 special tokens) and needs "
                f"at least 1 for the text; set it to {template.overhead + 1} or more, or lower model.num_prompt_tokens"
            )
        new = [*prompt_tokens(num_prompt_tokens), *label_tokens(taxonomy)]
        vocabulary = tokenizer.get_vocab()
        known = [token for token in new if token in vocabulary]
        if known:
            raise ValueError(
                f"the tokenizer of {tokenizer.name_or_path!r} already has template tokens such as {known[0]!r}; "
                "set backbone.name to the model that it was trained from"
            )
        tokenizer.add_tokens(new, special_tokens=True)
        return template

    @property
    def num_levels(self) -> int:
        return len(self.level_sizes)

    @property
    def overhead(self) -> int:
        """Tokens that are not text: m + d + 3."""
        return len(self.prompt_ids) + self.num_levels + 3

    @property
    def text_budget(self) -> int:
        """Texts are cut to so many tokens; the template's tail never is."""
        return self.max_length - self.overhead


class PTMTBatch(NamedTuple):
    """One batch; ``mlm_*`` and ``slots`` only differ from "nothing" in training."""

    rows: Tensor  # int64 [B], rows of the split
    input_ids: Tensor  # int64 [B, L]
    attention_mask: Tensor  # int64 [B, L]
    positions: Tensor  # int64 [B, K]
    mlm_index: Tensor  # int64 [N], places of the masked text tokens in the flattened [B * K]
    mlm_ids: Tensor  # int64 [N], the tokens that were there
    slots: Tensor  # bool [B, D], True where the slot holds [MASK]
    targets: Tensor  # bool [B, V]
    num_text_tokens: int


class PTMTCollator:
    """Fills the template, masks text tokens as BERT does, and unmasks label slots with probability 1 - p_label.

    The masks depend on the seed, the epoch and the rows of the batch alone: not on the worker that makes the batch,
    nor on what ran before, so a resumed run draws the same.

    Args:
        mlm_probability: of a text token to be masked: 80 % ``[MASK]``, 10 % a random token, 10 % unchanged.
        p_label: of a slot to stay ``[MASK]``; else it holds one of the level's true label tokens, drawn at random.
            A slot without a true label always stays ``[MASK]``.
        mlm_slots: slots that stay ``[MASK]`` and have true labels are masked-LM targets, too.
        pad_to_multiple_of: of the sequence length.
    """

    def __init__(
        self,
        template: Template,
        *,
        mlm_probability: float,
        p_label: float,
        mlm_slots: bool,
        seed: int,
        pad_to_multiple_of: int = 1,
    ) -> None:
        check_range("model.mlm_probability", mlm_probability, 0, 1)
        check_range("model.p_label", p_label, 0, 1)
        self.template = template
        self.mlm_probability, self.p_label, self.seed = mlm_probability, p_label, seed
        self.mlm_slots, self.pad_to_multiple_of = mlm_slots, pad_to_multiple_of

    def __call__(self, examples: Sequence[Example]) -> PTMTBatch:
        template = self.template
        texts = [example.input_ids[: template.text_budget] for example in examples]
        lengths = np.array([len(text) for text in texts])
        input_ids_BL = self._fill(texts, lengths)
        slots_BD = (lengths + 2 + len(template.prompt_ids))[:, None] + np.arange(template.num_levels)
        targets_BV = np.zeros((len(examples), sum(template.level_sizes)), dtype=bool)
        for row, example in enumerate(examples):
            targets_BV[row, example.nodes] = True

        rng = np.random.default_rng((self.seed, examples[0].epoch, examples[0].row))
        chosen_BD = self._choose_labels(targets_BV, rng)
        stays_BD = self._unmask_slots(input_ids_BL, slots_BD, chosen_BD, rng)
        original_BL = input_ids_BL.copy()
        masked_BL = self._mask_text(input_ids_BL, lengths, rng)
        positions_BK, mlm_index_N = _positions(slots_BD, masked_BL)
        mlm_ids_N = original_BL[masked_BL]
        if self.mlm_slots:
            rows, levels = (stays_BD & (chosen_BD >= 0)).nonzero()
            mlm_index_N = np.concatenate([mlm_index_N, rows * positions_BK.shape[1] + levels])
            mlm_ids_N = np.concatenate([mlm_ids_N, chosen_BD[rows, levels]])
        attention_BL = np.arange(input_ids_BL.shape[1]) < (lengths + template.overhead)[:, None]
        return PTMTBatch(
            rows=torch.tensor([example.row for example in examples]),
            input_ids=torch.from_numpy(input_ids_BL),
            attention_mask=torch.from_numpy(attention_BL.astype(np.int64)),
            positions=torch.from_numpy(positions_BK),
            mlm_index=torch.from_numpy(mlm_index_N),
            mlm_ids=torch.from_numpy(mlm_ids_N),
            slots=torch.from_numpy(stays_BD),
            targets=torch.from_numpy(targets_BV),
            num_text_tokens=int(lengths.sum()),
        )

    def _fill(self, texts: Sequence[npt.NDArray[np.int32]], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        template, multiple = self.template, self.pad_to_multiple_of
        longest = int(lengths.max()) + template.overhead
        # Never beyond what the position table holds.
        width = min(-(-longest // multiple) * multiple, template.max_length)
        tail = [template.sep_id, *template.prompt_ids, *[template.mask_id] * template.num_levels, template.sep_id]
        input_ids = np.full((len(texts), width), template.pad_id, dtype=np.int64)
        input_ids[:, 0] = template.cls_id
        for row, text in enumerate(texts):
            input_ids[row, 1 : 1 + len(text)] = text
            input_ids[row, 1 + len(text) : 1 + len(text) + len(tail)] = tail
        return input_ids

    def _choose_labels(self, targets_BV: npt.NDArray[np.bool_], rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """One of the true label tokens of each level, at random; -1 where there is none, or no use for it."""
        chosen = np.full((len(targets_BV), self.template.num_levels), -1)
        if self.p_label == 1 and not self.mlm_slots:
            return chosen
        start = 0
        for level, size in enumerate(self.template.level_sizes):
            targets = targets_BV[:, start : start + size]
            # The largest of independent uniforms is a uniform choice among the true labels.
            labels = (rng.random(targets.shape) * targets).argmax(axis=1) + start + self.template.first_label_id
            chosen[:, level] = np.where(targets.any(axis=1), labels, -1)
            start += size
        return chosen

    def _unmask_slots(
        self,
        input_ids_BL: npt.NDArray[np.int64],
        slots_BD: npt.NDArray[np.int64],
        chosen_BD: npt.NDArray[np.int64],
        rng: np.random.Generator,
    ) -> npt.NDArray[np.bool_]:
        """Write the chosen label token into some slots, in place; True where the slot stays masked."""
        if self.p_label == 1:
            return np.ones(slots_BD.shape, dtype=bool)
        unmasked = (rng.random(slots_BD.shape) >= self.p_label) & (chosen_BD >= 0)
        rows, levels = unmasked.nonzero()
        input_ids_BL[rows, slots_BD[rows, levels]] = chosen_BD[rows, levels]
        return ~unmasked

    def _mask_text(
        self, input_ids_BL: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], rng: np.random.Generator
    ) -> npt.NDArray[np.bool_]:
        """Corrupt text tokens in place (Devlin et al. 2019); True at the masked ones."""
        if self.mlm_probability == 0:
            return np.zeros(input_ids_BL.shape, dtype=bool)
        # Drawn for the longest text, not for the padded width: padding must not change the masks.
        places = np.arange(int(lengths.max()))
        chosen = (places < lengths[:, None]) & (rng.random((len(lengths), len(places))) < self.mlm_probability)
        masked = np.zeros(input_ids_BL.shape, dtype=bool)
        masked[:, 1 : 1 + len(places)] = chosen
        num_masked = int(masked.sum())
        fate = rng.random(num_masked)
        random_ids = rng.integers(self.template.num_text_tokens, size=num_masked)
        kept_ids = input_ids_BL[masked]
        input_ids_BL[masked] = np.select([fate < 0.8, fate < 0.9], [self.template.mask_id, random_ids], kept_ids)
        return masked


def _positions(
    slots_BD: npt.NDArray[np.int64], masked_BL: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions ``[B, K]`` whose states are needed, and where in them the masked text tokens are."""
    num_levels = slots_BD.shape[1]
    num_masked = masked_BL.sum(axis=1)
    positions = np.zeros((len(slots_BD), num_levels + int(num_masked.max())), dtype=np.int64)
    positions[:, :num_levels] = slots_BD
    rows, columns = masked_BL.nonzero()
    first_of_row = np.repeat(np.cumsum(num_masked) - num_masked, num_masked)
    places = num_levels + np.arange(len(rows)) - first_of_row
    positions[rows, places] = columns
    return positions, rows * positions.shape[1] + places
