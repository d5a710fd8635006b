"""Fills the prompt template, sets the language-modelling task, and shows some labels.

Shape legend: ``B`` documents, ``L`` sequence length, ``Q`` length of the decoder's sequence, ``D`` levels, ``V`` nodes,
``N`` text tokens to be predicted in the batch, ``K`` positions of interest a document: its D slots, then those where
text tokens are to be predicted, padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ptmt_lightning.data.document import Example
from ptmt_lightning.models.ptmt.denoising import Tokens, corrupt_spans, infill_text
from ptmt_lightning.models.ptmt.template import Template
from ptmt_lightning.utils.checks import check_range

IntArray = npt.NDArray[np.int64]


class PTMTBatch(NamedTuple):
    """One batch; ``mlm_*`` and ``slots`` only differ from "nothing" in training."""

    rows: Tensor  # int64 [B], rows of the split
    input_ids: Tensor  # int64 [B, L]
    attention_mask: Tensor  # int64 [B, L]
    text_lengths: Tensor  # int64 [B]
    decoder_ids: Tensor | None  # int64 [B, Q], what the decoder of an encoder-decoder reads
    positions: Tensor  # int64 [B, K], in decoder_ids where there are some
    mlm_index: Tensor  # int64 [N], places in the flattened [B * K] where text tokens are to be predicted
    mlm_ids: Tensor  # int64 [N], these tokens
    slots: Tensor  # bool [B, D], True where the slot holds [MASK]
    targets: Tensor  # bool [B, V]
    num_text_tokens: int


class PTMTCollator:
    """Fills the template, sets the language-modelling task, and unmasks label slots with probability 1 - p_label.

    The masks depend on the seed, the epoch and the rows of the batch alone: not on the worker that makes the batch,
    nor on what ran before, so a resumed run draws the same.

    Args:
        mlm_probability: of a text token to be part of the task. An encoder's is masked as in BERT: 80 % ``[MASK]``,
            10 % a random token, 10 % unchanged. A decoder's is predicted from the tokens before it. From an
            encoder-decoder's text so many are taken out, see :mod:`~ptmt_lightning.models.ptmt.denoising`.
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
        num_text_tokens = sum(map(len, texts))
        targets_BV = np.zeros((len(examples), sum(template.level_sizes)), dtype=bool)
        for row, example in enumerate(examples):
            targets_BV[row, example.nodes] = True

        rng = np.random.default_rng((self.seed, examples[0].epoch, examples[0].row))
        chosen_BD = self._choose_labels(targets_BV, rng)
        decoder_ids_BQ = None
        if template.form == "encoder-decoder":
            written = [text[:0] for text in texts]
            if self.mlm_probability > 0:
                texts, written = self._take_out(texts, rng)
            decoder_ids_BQ, asked, asked_ids_N = self._decoder_side(written)
        lengths = np.array([len(text) for text in texts])
        input_ids_BL = self._fill(texts, lengths)
        if decoder_ids_BQ is None:
            first_slot_B = lengths + template.prompt_offset + len(template.prompt_ids)
            slots_BD = first_slot_B[:, None] + np.arange(template.num_levels)
            stays_BD = self._unmask_slots(input_ids_BL, slots_BD, chosen_BD, rng)
            asked, asked_ids_N = self._mask_text(input_ids_BL, lengths, rng)
        else:
            slots_BD = np.tile(1 + np.arange(template.num_levels), (len(texts), 1))
            stays_BD = self._unmask_slots(decoder_ids_BQ, slots_BD, chosen_BD, rng)
        positions_BK, mlm_index_N = _positions(slots_BD, asked)
        if self.mlm_slots:
            rows, levels = (stays_BD & (chosen_BD >= 0)).nonzero()
            mlm_index_N = np.concatenate([mlm_index_N, rows * positions_BK.shape[1] + levels])
            asked_ids_N = np.concatenate([asked_ids_N, chosen_BD[rows, levels]])
        attention_BL = np.arange(input_ids_BL.shape[1]) < self._widths(lengths)[:, None]
        return PTMTBatch(
            rows=torch.tensor([example.row for example in examples]),
            input_ids=torch.from_numpy(input_ids_BL),
            attention_mask=torch.from_numpy(attention_BL.astype(np.int64)),
            text_lengths=torch.from_numpy(lengths),
            decoder_ids=None if decoder_ids_BQ is None else torch.from_numpy(decoder_ids_BQ),
            positions=torch.from_numpy(positions_BK),
            mlm_index=torch.from_numpy(mlm_index_N),
            mlm_ids=torch.from_numpy(asked_ids_N),
            slots=torch.from_numpy(stays_BD),
            targets=torch.from_numpy(targets_BV),
            num_text_tokens=num_text_tokens,
        )

    def _tail(self) -> list[int]:
        """What follows the text."""
        template = self.template
        slots = [] if template.form == "encoder-decoder" else [template.mask_id] * template.num_levels
        return [*template.separator_ids, *template.prompt_ids, *slots, *template.end_ids]

    def _widths(self, lengths: IntArray) -> IntArray:
        """Tokens of the filled template."""
        return lengths + len(self.template.prefix_ids) + len(self._tail())

    def _fill(self, texts: Sequence[Tokens], lengths: IntArray) -> IntArray:
        template, multiple = self.template, self.pad_to_multiple_of
        longest = int(self._widths(lengths).max())
        # Never beyond what the position table holds.
        width = min(-(-longest // multiple) * multiple, template.max_length)
        input_ids = np.full((len(texts), width), template.pad_id, dtype=np.int64)
        for row, text in enumerate(texts):
            filled = [*template.prefix_ids, *text, *self._tail()]
            input_ids[row, : len(filled)] = filled
        return input_ids

    def _take_out(self, texts: Sequence[Tokens], rng: np.random.Generator) -> tuple[list[Tokens], list[Tokens]]:
        """Texts with holes, and what the decoder has to write."""
        template = self.template
        if template.sentinel_ids:
            pairs = [corrupt_spans(text, template.sentinel_ids, self.mlm_probability, rng) for text in texts]
            return [text for text, _ in pairs], [np.append(target, template.end_ids) for _, target in pairs]
        # A hole of no token makes a text longer.
        holed = [
            infill_text(text, template.mask_id, self.mlm_probability, rng)[: template.text_budget] for text in texts
        ]
        return holed, [np.concatenate([template.prefix_ids, text, template.end_ids]) for text in texts]

    def _decoder_side(self, written: Sequence[Tokens]) -> tuple[IntArray, npt.NDArray[np.bool_], IntArray]:
        """The slots and then, shifted by one, what is to be written; the places that are asked, and for what."""
        template = self.template
        head = [*template.slot_prefix_ids, *[template.mask_id] * template.num_levels]
        longest = max(map(len, written))
        decoder_ids = np.full((len(written), len(head) + longest), template.pad_id, dtype=np.int64)
        asked = np.zeros(decoder_ids.shape, dtype=bool)
        decoder_ids[:, : len(head)] = head
        for row, tokens in enumerate(written):
            if len(tokens):
                decoder_ids[row, len(head) : len(head) + len(tokens)] = [*template.slot_prefix_ids, *tokens[:-1]]
                asked[row, len(head) : len(head) + len(tokens)] = True
        return decoder_ids, asked, np.concatenate(written).astype(np.int64)

    def _choose_labels(self, targets_BV: npt.NDArray[np.bool_], rng: np.random.Generator) -> IntArray:
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
        input_ids_BL: IntArray,
        slots_BD: IntArray,
        chosen_BD: IntArray,
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
        self, input_ids_BL: IntArray, lengths: IntArray, rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.bool_], IntArray]:
        """The places that are asked for a text token, and for which; an encoder's are corrupted, in place."""
        asked = np.zeros(input_ids_BL.shape, dtype=bool)
        if self.mlm_probability == 0:
            return asked, input_ids_BL[asked]
        # Drawn for the longest text, not for the padded width: padding must not change the masks.
        places = np.arange(int(lengths.max()))
        chosen = (places < lengths[:, None]) & (rng.random((len(lengths), len(places))) < self.mlm_probability)
        start = len(self.template.prefix_ids)
        asked[:, start : start + len(places)] = chosen
        asked_ids = input_ids_BL[asked]
        if self.template.form == "decoder":  # the token before says what comes next
            return np.roll(asked, -1, axis=1), asked_ids
        # Devlin et al. 2019
        fate = rng.random(len(asked_ids))
        random_ids = rng.integers(self.template.num_text_tokens, size=len(asked_ids))
        input_ids_BL[asked] = np.select([fate < 0.8, fate < 0.9], [self.template.mask_id, random_ids], asked_ids)
        return asked, asked_ids


def _positions(slots_BD: IntArray, asked: npt.NDArray[np.bool_]) -> tuple[IntArray, IntArray]:
    """Positions ``[B, K]`` whose states are needed, and where in them those are that are asked for text tokens."""
    num_levels = slots_BD.shape[1]
    num_asked = asked.sum(axis=1)
    positions = np.zeros((len(slots_BD), num_levels + int(num_asked.max())), dtype=np.int64)
    positions[:, :num_levels] = slots_BD
    rows, columns = asked.nonzero()
    first_of_row = np.repeat(np.cumsum(num_asked) - num_asked, num_asked)
    places = num_levels + np.arange(len(rows)) - first_of_row
    positions[rows, places] = columns
    return positions, rows * positions.shape[1] + places
