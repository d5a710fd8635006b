"""Labels for new texts from the ``model/`` folder of a finished run; nothing of training is imported.

Shape legend: ``B`` documents, ``V`` nodes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ptmt_lightning.data.document import Example
from ptmt_lightning.inference.engines import TorchScorer, open_exported
from ptmt_lightning.inference.model_folder import ModelFolder, Precision
from ptmt_lightning.models.ptmt.collator import PTMTBatch, PTMTCollator
from ptmt_lightning.utils.checks import check_range
from ptmt_lightning.utils.tokens import is_unicode, text_token_ids

_BATCHES_AT_ONCE = 32  # whose texts are sorted by length together
_LONG_WORK = 1000  # texts, from which on a progress bar is shown


class LabelPath(NamedTuple):
    """Labels from the top down, and the probability of each."""

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]

    def to_json(self) -> dict[str, list[str] | list[float]]:
        """What files and answers hold."""
        return {"path": list(self.labels), "probabilities": list(self.probabilities)}


Prediction = list[LabelPath]  # of one text, most probable first by the last label


class Classifier:
    """A trained PTMT with its taxonomy, thresholds and tokenizer.

    Args:
        score: gives logits ``[B, V]`` for a batch.
        folder: whose template, taxonomy, thresholds (one a level; a node is predicted above it), ``prune`` (drop
            predicted nodes below level 1 without a predicted parent) and ``coherent`` (score a node no higher than
            its parent) it follows.
    """

    def __init__(
        self,
        score: Callable[[PTMTBatch], Tensor],
        folder: ModelFolder,
        tokenizer: PreTrainedTokenizerBase,
        precision: Precision = "float32",
    ) -> None:
        self.score, self.folder, self.tokenizer, self.precision = score, folder, tokenizer, precision
        self.template, self.taxonomy = folder.template, folder.taxonomy
        self.thresholds: list[float] = folder.settings["thresholds"]
        self.prune: bool = folder.settings["prune"]
        self.coherent: bool = folder.settings["coherent"]
        self.decision = folder.decision
        self.collate = PTMTCollator(self.template, mlm_probability=0.0, p_label=1.0, mlm_slots=False, seed=0)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, device: str | torch.device | None = None, precision: Precision = "float32"
    ) -> Classifier:
        """Open the ``model/`` folder of a run, what ``ptmt export`` made of it, or a copy of either on a hub.

        Args:
            device: default: a GPU where there is one. An exported model runs on the CPU.
            precision: of weights and computation. An exported model has its own.

        Raises:
            ValueError: nothing under that name, or not a PTMT model of this package.
        """
        folder = ModelFolder.open(str(name))
        where = folder.device(device, precision)
        score: Callable[[PTMTBatch], Tensor]
        tokenizer: PreTrainedTokenizerBase
        if folder.is_exported:
            score, tokenizer = open_exported(folder), AutoTokenizer.from_pretrained(folder.path)
        else:
            trained, tokenizer = TorchScorer.open(folder)
            score = trained.to(where).eval()
            for parameter in trained.parameters():  # buffers, such as angles of positions, need all of their digits
                parameter.data = parameter.data.to(getattr(torch, precision))
        return cls(score, folder, tokenizer, precision)

    def predict(
        self,
        texts: str | Iterable[str],
        *,
        threshold: float | Sequence[float] | None = None,
        top_k: int | None = None,
        prune: bool | None = None,
        batch_size: int = 32,
    ) -> Any:
        """Label paths of each text; what batches a text is in changes its probabilities by rounding only.

        Args:
            texts: one text; a list or a column of texts; or an iterator, which is read as its predictions are taken,
                a few batches at a time.
            threshold: in place of the model's; one number, or one a level.
            top_k: at most so many nodes a level, the most probable ones; without ``threshold`` no matter how probable.
            prune: in place of the model's setting.
            batch_size: texts at a time; they are sorted by length.

        Returns:
            A :data:`Prediction` for one text, a list of them, or for an iterator an iterator of them.

        Raises:
            ValueError: a bad option, or something that is not a text, with its place.
        """
        options = self._options(threshold, top_k, prune)
        check_range("batch_size", batch_size, 1, integer=True)
        if isinstance(texts, Mapping) or hasattr(texts, "columns"):
            raise ValueError(
                f"texts: expected a text, or texts one after the other, got {type(texts).__name__}; give one column of "
                "it, such as table['text']"
            )
        if isinstance(texts, str):
            return next(self._stream([texts], options, batch_size))
        if isinstance(texts, Iterator):
            return self._stream(texts, options, batch_size)
        known = list(texts)
        bar = tqdm(self._stream(known, options, batch_size), total=len(known), disable=len(known) < _LONG_WORK)
        return list(bar)

    def probabilities(self, texts: Sequence[str]) -> Tensor:
        """Float32 ``[B, V]`` on the CPU, in the order of ``taxonomy.names``."""
        ids = self.token_ids(texts)
        with torch.inference_mode():
            return self._probabilities(ids).cpu()

    def _options(
        self, threshold: float | Sequence[float] | None, top_k: int | None, prune: bool | None
    ) -> tuple[list[float] | None, int | None, bool]:
        levels = self.taxonomy.num_levels
        if isinstance(threshold, (np.ndarray, np.generic)):
            threshold = threshold.tolist()
        if isinstance(top_k, np.generic):
            top_k = top_k.item()
        thresholds: list[float] | None
        if threshold is None:
            thresholds = self.thresholds if top_k is None else None
        elif self.decision.single_label:
            raise ValueError(
                f"threshold={threshold}: this model predicts the most probable label of each level, or none, without a "
                "threshold; leave it out, or give top_k"
            )
        else:
            thresholds = list(threshold) if isinstance(threshold, Sequence) else [threshold] * levels
            if len(thresholds) != levels:
                raise ValueError(f"threshold={threshold}: expected a number, or {levels} numbers, one a level")
            for value in thresholds:
                check_range("threshold", value, 0, 1)
        if top_k is not None:
            check_range("top_k", top_k, 1, integer=True)
        return thresholds, top_k, self.prune if prune is None else prune

    def _stream(
        self, texts: Iterable[str], options: tuple[list[float] | None, int | None, bool], batch_size: int
    ) -> Iterator[Prediction]:
        first = 0
        iterator = iter(texts)
        while chunk := list(itertools.islice(iterator, batch_size * _BATCHES_AT_ONCE)):
            ids = self.token_ids(chunk, first)
            order = np.argsort([len(text) for text in ids], kind="stable")
            found: list[Prediction] = [[]] * len(chunk)
            for start in range(0, len(chunk), batch_size):
                rows = order[start : start + batch_size]
                try:
                    with torch.inference_mode():
                        predictions = self._decide([ids[row] for row in rows], *options)
                except torch.OutOfMemoryError as error:
                    raise ValueError(f"batch_size={batch_size}: too little memory; lower it") from error
                for row, prediction in zip(rows, predictions, strict=True):
                    found[row] = prediction
            yield from found
            first += len(chunk)

    def token_ids(self, texts: Sequence[str], first: int = 0) -> list[list[int]]:
        """Tokens of each text, cut to what the template leaves room for.

        Args:
            first: place of the first text in error messages.
        """
        for place, text in enumerate(texts, start=first):
            if not isinstance(text, str):
                raise ValueError(f"texts[{place}]: expected a string, got {type(text).__name__} {text!r}")
            if not is_unicode(text):
                raise ValueError(f"texts[{place}]: the text is not valid Unicode: {text!r}")
        return text_token_ids(self.tokenizer, texts, self.template.text_budget)

    def _probabilities(self, ids: Sequence[Sequence[int]]) -> Tensor:
        nothing = np.array([], dtype=np.int32)
        examples = [Example(row, 0, np.array(text, dtype=np.int32), nothing) for row, text in enumerate(ids)]
        logits = self.score(self.collate(examples))
        if not logits.isfinite().all():
            raise ValueError("the model's scores are not finite numbers; try precision='float32'")
        probabilities = self.decision.probabilities(logits, self.taxonomy.level_sizes)
        return self.taxonomy.coherent(probabilities) if self.coherent else probabilities

    def _decide(
        self, ids: Sequence[Sequence[int]], thresholds: list[float] | None, top_k: int | None, prune: bool
    ) -> list[Prediction]:
        probabilities = self._probabilities(ids)
        predicted = torch.ones_like(probabilities, dtype=torch.bool)
        if thresholds is not None:
            predicted = self.decision.predict(probabilities, self.taxonomy.level_sizes, thresholds)
        if top_k is not None:
            predicted &= self._best(probabilities, top_k)
        if prune:
            predicted = self.taxonomy.prune(predicted)
        nodes: list[list[int]] = [[] for _ in ids]
        for row, node in predicted.nonzero().tolist():
            nodes[row].append(node)
        return [self._paths(*pair) for pair in zip(nodes, probabilities.tolist(), strict=True)]

    def _best(self, probabilities: Tensor, top_k: int) -> Tensor:
        """Bool ``[B, V]``: the most probable nodes of each level."""
        kept = torch.zeros_like(probabilities, dtype=torch.bool)
        for nodes in self.taxonomy.level_slices:
            level = probabilities[:, nodes]
            best = level.topk(min(top_k, level.shape[1]), dim=-1).indices
            kept[:, nodes] = torch.zeros_like(level, dtype=torch.bool).scatter_(-1, best, True)
        return kept

    def _paths(self, nodes: list[int], scores: list[float]) -> Prediction:
        names = self.taxonomy.names
        paths = [
            LabelPath(tuple(names[node] for node in path), tuple(round(scores[node], 6) for node in path))
            for path in self.taxonomy.label_paths(nodes)
        ]
        return sorted(paths, key=lambda path: -path.probabilities[-1])
