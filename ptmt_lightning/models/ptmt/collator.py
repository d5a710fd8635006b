"""Batches of PTMT: filled prompt templates, with the language-modelling task and some true labels shown in training.

Shape legend: ``B`` documents, ``L`` sequence length, ``Q`` length of the decoder's sequence, ``D`` levels, ``V`` nodes,
``N`` tokens that the batch's language-modelling (mlm) task is to predict, ``K`` positions of interest a document: its D
slots, then those where it is to predict a text token, padded.
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
    """One batch; outside training the ``mlm_*`` are empty and ``slots`` is all True."""

    rows: Tensor  # int64 [B], row of each document in its split
    input_ids: Tensor  # int64 [B, L]
    attention_mask: Tensor  # int64 [B, L]
    text_lengths: Tensor  # int64 [B]
    decoder_ids: Tensor | None  # int64 [B, Q], what the decoder of an encoder-decoder reads
    positions: Tensor  # int64 [B, K], positions of interest in decoder_ids where there are some, else in input_ids
    mlm_index: Tensor  # int64 [N], which of the flattened [B * K] positions are to predict a token
    mlm_ids: Tensor  # int64 [N], the tokens that they are to predict
    slots: Tensor  # bool [B, D], True where the slot holds [MASK]
    targets: Tensor  # bool [B, V]
    num_text_tokens: int


class PTMTCollator:
    """Makes batches from tokenised documents: fills the template, masks text tokens, and shows some true labels.

    What is masked and shown depends on the seed, the epoch and the documents of the batch alone, not on the worker that
    makes the batch or on earlier batches, so that a resumed run draws the same.

    Args:
        template: the template to fill.
        mlm_probability: probability of a text token to be part of the language-modelling task. With an encoder such a
            token is masked as in BERT: 80 % become ``[MASK]``, 10 % a random token, and 10 % stay. A decoder predicts
            it from the tokens before it. For an encoder-decoder it is the share of tokens that are removed from the
            text, see :mod:`~ptmt_lightning.models.ptmt.denoising`.
        p_label: probability of a slot to stay ``[MASK]``; else it shows one of the true label tokens of its level,
            drawn at random. A slot without a true label always stays ``[MASK]``.
        mlm_slots: whether slots that stay ``[MASK]`` and have true labels are to predict one of these in the
            language-modelling task.
        seed: seeds what is drawn at random.
        pad_to_multiple_of: sequences are padded to a multiple of this length.

    Raises:
        ValueError: a probability outside of [0, 1].
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
        """Return the batch of these documents, on the CPU."""
        template = self.template
        texts = [example.input_ids[: template.text_budget] for example in examples]
        num_text_tokens = sum(map(len, texts))
        targets_BV = np.zeros((len(examples), sum(template.level_sizes)), dtype=bool)
        for row, example in enumerate(examples):
            targets_BV[row, example.nodes] = True

        rng = np.random.default_rng((self.seed, examples[0].epoch, examples[0].row))
        drawn_labels_BD = self._choose_labels(targets_BV, rng)
        decoder_ids_BQ = None
        if template.form == "encoder-decoder":
            written = [text[:0] for text in texts]
            if self.mlm_probability > 0:
                texts, written = self._corrupt_texts(texts, rng)
            decoder_ids_BQ, is_target, mlm_ids_N = self._decoder_inputs(written)
        lengths = np.array([len(text) for text in texts])
        input_ids_BL = self._fill_template(texts, lengths)
        if decoder_ids_BQ is None:
            slots_BD = template.slot_places(lengths)[:, None] + np.arange(template.num_levels)
            is_masked_BD = self._unmask_slots(input_ids_BL, slots_BD, drawn_labels_BD, rng)
            is_target, mlm_ids_N = self._mask_text(input_ids_BL, lengths, rng)
        else:
            slots_BD = np.tile(1 + np.arange(template.num_levels), (len(texts), 1))
            is_masked_BD = self._unmask_slots(decoder_ids_BQ, slots_BD, drawn_labels_BD, rng)
        positions_BK, mlm_index_N = _positions(slots_BD, is_target)
        if self.mlm_slots:
            rows, levels = (is_masked_BD & (drawn_labels_BD >= 0)).nonzero()
            mlm_index_N = np.concatenate([mlm_index_N, rows * positions_BK.shape[1] + levels])
            mlm_ids_N = np.concatenate([mlm_ids_N, drawn_labels_BD[rows, levels]])
        attention_BL = np.arange(input_ids_BL.shape[1]) < self._filled_lengths(lengths)[:, None]
        return PTMTBatch(
            rows=torch.tensor([example.row for example in examples]),
            input_ids=torch.from_numpy(input_ids_BL),
            attention_mask=torch.from_numpy(attention_BL.astype(np.int64)),
            text_lengths=torch.from_numpy(lengths),
            decoder_ids=None if decoder_ids_BQ is None else torch.from_numpy(decoder_ids_BQ),
            positions=torch.from_numpy(positions_BK),
            mlm_index=torch.from_numpy(mlm_index_N),
            mlm_ids=torch.from_numpy(mlm_ids_N),
            slots=torch.from_numpy(is_masked_BD),
            targets=torch.from_numpy(targets_BV),
            num_text_tokens=num_text_tokens,
        )

    def _filled_lengths(self, lengths: IntArray) -> IntArray:
        """Return the lengths of filled templates, int64 ``[B]``, from the lengths of their texts."""
        return lengths + len(self.template.ids_before_text) + len(self.template.ids_after_text)

    def _fill_template(self, texts: Sequence[Tokens], lengths: IntArray) -> IntArray:
        template, multiple = self.template, self.pad_to_multiple_of
        longest = int(self._filled_lengths(lengths).max())
        # Padding must not exceed what the position table holds.
        width = min(-(-longest // multiple) * multiple, template.max_length)
        input_ids = np.full((len(texts), width), template.pad_id, dtype=np.int64)
        before, after = template.ids_before_text, template.ids_after_text
        for row, text in enumerate(texts):
            filled = [*before, *text, *after]
            input_ids[row, : len(filled)] = filled
        return input_ids

    def _corrupt_texts(self, texts: Sequence[Tokens], rng: np.random.Generator) -> tuple[list[Tokens], list[Tokens]]:
        """Return corrupted texts, and for each the tokens that the decoder is to write."""
        template = self.template
        if template.sentinel_ids:
            pairs = [corrupt_spans(text, template.sentinel_ids, self.mlm_probability, rng) for text in texts]
            return [text for text, _ in pairs], [np.append(target, template.end_ids) for _, target in pairs]
        # Cut, as a mask that is inserted makes a text longer.
        holed = [
            infill_text(text, template.mask_id, self.mlm_probability, rng)[: template.text_budget] for text in texts
        ]
        return holed, [np.concatenate([template.prefix_ids, text, template.end_ids]) for text in texts]

    def _decoder_inputs(self, written: Sequence[Tokens]) -> tuple[IntArray, npt.NDArray[np.bool_], IntArray]:
        """Put the slots and, shifted by one, the tokens to be written into the decoder's sequence.

        Args:
            written: for each document the tokens that the decoder is to write; may be none.

        Returns:
            The sequences, int64 ``[B, Q]``; where in them a token is to be predicted, bool ``[B, Q]``; and these
            tokens, int64 ``[N]``.
        """
        template = self.template
        head = [*template.slot_prefix_ids, *template.slot_ids]
        longest = max(map(len, written))
        decoder_ids = np.full((len(written), len(head) + longest), template.pad_id, dtype=np.int64)
        is_target = np.zeros(decoder_ids.shape, dtype=bool)
        decoder_ids[:, : len(head)] = head
        for row, tokens in enumerate(written):
            if len(tokens):
                decoder_ids[row, len(head) : len(head) + len(tokens)] = [*template.slot_prefix_ids, *tokens[:-1]]
                is_target[row, len(head) : len(head) + len(tokens)] = True
        return decoder_ids, is_target, np.concatenate(written).astype(np.int64)

    def _choose_labels(self, targets_BV: npt.NDArray[np.bool_], rng: np.random.Generator) -> IntArray:
        """Draw one true label token for each document and level, int64 ``[B, D]``.

        It is -1 on levels without a true label, and everywhere if no setting uses it.
        """
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
        drawn_labels_BD: IntArray,
        rng: np.random.Generator,
    ) -> npt.NDArray[np.bool_]:
        """Write the drawn label tokens into some slots, in place; return which stay ``[MASK]``, bool ``[B, D]``."""
        if self.p_label == 1:
            return np.ones(slots_BD.shape, dtype=bool)
        unmasked = (rng.random(slots_BD.shape) >= self.p_label) & (drawn_labels_BD >= 0)
        rows, levels = unmasked.nonzero()
        input_ids_BL[rows, slots_BD[rows, levels]] = drawn_labels_BD[rows, levels]
        return ~unmasked

    def _mask_text(
        self, input_ids_BL: IntArray, lengths: IntArray, rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.bool_], IntArray]:
        """Draw the text tokens that are to be predicted; for an encoder, mask them in place.

        Args:
            input_ids_BL: filled templates.
            lengths: number of text tokens of each document, int64 ``[B]``.
            rng: draws the tokens.

        Returns:
            Where a token is to be predicted, bool ``[B, L]``; and these tokens, int64 ``[N]``.
        """
        is_target = np.zeros(input_ids_BL.shape, dtype=bool)
        if self.mlm_probability == 0:
            return is_target, input_ids_BL[is_target]
        # Drawn for the longest text, not for the padded width: padding must not change the masks.
        places = np.arange(int(lengths.max()))
        chosen = (places < lengths[:, None]) & (rng.random((len(lengths), len(places))) < self.mlm_probability)
        start = len(self.template.ids_before_text)
        is_target[:, start : start + len(places)] = chosen
        mlm_ids = input_ids_BL[is_target]
        if self.template.form == "decoder":  # each is predicted at the position before it
            return np.roll(is_target, -1, axis=1), mlm_ids
        # As in BERT (Devlin et al. 2019, section 3.1).
        draw = rng.random(len(mlm_ids))
        random_ids = rng.integers(self.template.num_text_tokens, size=len(mlm_ids))
        input_ids_BL[is_target] = np.select([draw < 0.8, draw < 0.9], [self.template.mask_id, random_ids], mlm_ids)
        return is_target, mlm_ids


def _positions(slots_BD: IntArray, is_target: npt.NDArray[np.bool_]) -> tuple[IntArray, IntArray]:
    """Gather the positions whose states are needed: those of the slots, then those where a text token is predicted.

    Args:
        slots_BD: positions of the slots.
        is_target: where a text token is to be predicted, bool ``[B, L]`` or ``[B, Q]``.

    Returns:
        The positions, int64 ``[B, K]``, padded with 0; and which of the flattened ``[B * K]`` are for text tokens.
    """
    num_levels = slots_BD.shape[1]
    num_targets = is_target.sum(axis=1)
    positions = np.zeros((len(slots_BD), num_levels + int(num_targets.max())), dtype=np.int64)
    positions[:, :num_levels] = slots_BD
    rows, columns = is_target.nonzero()
    first_of_row = np.repeat(np.cumsum(num_targets) - num_targets, num_targets)
    places = num_levels + np.arange(len(rows)) - first_of_row
    positions[rows, places] = columns
    return positions, rows * positions.shape[1] + places
