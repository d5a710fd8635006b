"""Prediction of labels for new texts, with the ``model/`` folder of a finished run; imports no training code.

Shape legend: ``B`` documents, ``V`` nodes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from ptmt_lightning.data.document import Example
from ptmt_lightning.decisions import DecisionRule, per_level
from ptmt_lightning.inference.model_folder import ModelFolder, Precision
from ptmt_lightning.inference.publishing import copy_model, push_model
from ptmt_lightning.utils.checks import check_range
from ptmt_lightning.utils.tokens import is_unicode, text_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BATCHES_AT_ONCE = 32  # the texts of this many batches are sorted by length together
Found = TypeVar("Found")  # what is found for a batch

_LONG_WORK = 1000  # from this number of texts on, a progress bar is shown


class LabelPath(NamedTuple):
    """One path of predicted labels, from the top level down, with the probability of each label.

    Where predictions are not pruned, a path may begin below the top: with the unique name of its first node.
    """

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]

    def to_json(self) -> dict[str, list[str] | list[float]]:
        """Return the path in the form that output files and HTTP answers have: ``{"path", "probabilities"}``."""
        return {"path": list(self.labels), "probabilities": list(self.probabilities)}


Prediction = list[LabelPath]  # the paths of one text; the one with the most probable last label comes first


class Classifier:
    """A trained model with its taxonomy, thresholds and tokenizer; :meth:`from_pretrained` opens one of any system.

    Args:
        score: computes the logits ``[B, V]`` of a batch.
        folder: description of the saved model, which has its system, taxonomy and decision rule.
        tokenizer: tokenizer of the model, with its added tokens.
        precision: number format in which ``score`` computes; an interrupted :func:`.predict_file.predict_file` goes on
            with the same one only.
    """

    def __init__(
        self,
        score: Callable[[Any], Tensor],
        folder: ModelFolder,
        tokenizer: PreTrainedTokenizerBase,
        precision: Precision = "float32",
    ) -> None:
        self.score, self.folder, self.tokenizer, self.precision = score, folder, tokenizer, precision
        self.taxonomy, self.rule = folder.taxonomy, folder.rule
        self.collate = folder.system.collator(tokenizer)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: str | torch.device | None = None,
        precision: Precision = "float32",
        trust: bool = False,
    ) -> Classifier:
        """Open a saved model: the ``model/`` folder of a run, an exported folder, or a copy of either on a model hub.

        Args:
            name: path of the folder, or name of the model on the hub, ``OWNER/NAME``; ``OWNER/NAME@REVISION`` for one
                commit, branch or tag.
            device: device to run on; None for a GPU where there is one. An exported model runs on the CPU only.
            precision: number format of weights and computation. An exported model takes ``float32`` only.
            trust: open ``model.pt2`` where there is nothing else, a file that can run code; yours alone.

        Raises:
            ValueError: there is no model of that name, it is not of a system of this package, its parts do not
                belong together, or it can't be run with this device or precision.
        """
        # Imported only here: Transformers loads the code of its models, which takes as long as all other imports.
        from ptmt_lightning.backbones.sources import read_tokenizer
        from ptmt_lightning.inference.engines import TorchScorer, open_exported

        folder = ModelFolder.open(str(name))
        folder.check_trust(trust=trust)
        where = folder.device(device, precision)
        score: Callable[[Any], Tensor]
        tokenizer: PreTrainedTokenizerBase
        if folder.is_exported:
            tokenizer = read_tokenizer(str(folder.path))
            folder.check_tokenizer(tokenizer)
            score = open_exported(folder)
        else:
            trained, tokenizer = TorchScorer.open(folder)
            score = trained.to(where).eval()
            for parameter in trained.parameters():  # not buffers: angles of positions, for one, need full precision
                parameter.data = parameter.data.to(getattr(torch, precision))
        return cls(score, folder, tokenizer, precision)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Copy the model's files, as they were opened, into a new folder, which :meth:`from_pretrained` opens.

        Args:
            save_directory: the folder to be made.

        Raises:
            ValueError: there is such a folder already, or the files have gone since they were opened.
        """
        copy_model(self.folder, Path(save_directory).expanduser())

    def push_to_hub(self, repo_id: str, *, private: bool = False) -> str:
        """Upload the model's files to a model hub, as ``ptmt push`` does, and return their address.

        Args:
            repo_id: ``OWNER/NAME`` of the hub's repository; it is made where there is none.
            private: where the repository is made, whether it is for its owner alone.

        Raises:
            ValueError: the hub did not take the model; the message says why.
        """
        return push_model(self.folder, repo_id, private=private)

    def predict(
        self,
        texts: str | Iterable[str],
        *,
        threshold: float | Sequence[float] | None = None,
        top_k: int | None = None,
        prune: bool | None = None,
        batch_size: int = 32,
    ) -> Any:
        """Predict the label paths of each text.

        How the texts are put into batches changes probabilities by rounding only.

        Args:
            texts: one text; a list or a column of texts; or an iterator, which is read a few batches at a time, as its
                predictions are taken.
            threshold: predict a node above this probability, one number or a list with one a level.
            top_k: predict at most so many nodes on each level, the most probable ones. Without ``threshold`` they are
                predicted no matter how improbable they are. With neither, the model decides as it was trained to:
                by thresholds of its own, or for the most probable path.
            prune: drop predicted nodes below level 1 without a predicted parent; None for the model's own setting.
            batch_size: number of texts in a batch; texts of similar length share one.

        Returns:
            A :data:`Prediction` for one text, a list of them for several, an iterator of them for an iterator.

        Raises:
            ValueError: an option is not valid, an entry of ``texts`` is no text (the message names its place), there is
                too little memory for a batch, or the model's scores are not finite.
        """
        rule = self._rule(threshold, top_k, prune)
        check_range("batch_size", batch_size, 1, integer=True)
        _check_texts(texts)
        if isinstance(texts, str):
            return next(self._stream([texts], rule, batch_size))
        if isinstance(texts, Iterator):
            return self._stream(texts, rule, batch_size)
        known = list(texts)
        bar = tqdm(self._stream(known, rule, batch_size), total=len(known), disable=len(known) < _LONG_WORK)
        return list(bar)

    def probabilities(self, texts: str | Iterable[str], *, batch_size: int = 32) -> Tensor:
        """Return the probability of each node for each text, float32 ``[B, V]`` on the CPU.

        Args:
            texts: the texts, ``B`` of them, or one.
            batch_size: number of texts in a batch; texts of similar length share one.

        Returns:
            Probabilities, with the nodes in the order of ``taxonomy.names``.

        Raises:
            ValueError: an entry of ``texts`` is no text, there is too little memory for a batch, or the model's scores
                are not finite.
        """
        check_range("batch_size", batch_size, 1, integer=True)
        _check_texts(texts)
        ids = self.token_ids([texts] if isinstance(texts, str) else list(texts))
        probabilities = torch.empty(len(ids), len(self.taxonomy))
        for rows, found in _in_batches(ids, batch_size, self._probabilities):
            probabilities[rows] = found.cpu()
        return probabilities

    def _rule(self, threshold: float | Sequence[float] | None, top_k: int | None, prune: bool | None) -> DecisionRule:
        """Return the model's decision rule, changed by those options that are not None."""
        if isinstance(threshold, (np.ndarray, np.generic)):
            threshold = threshold.tolist()
        if isinstance(top_k, np.generic):
            top_k = top_k.item()
        if top_k is not None:
            check_range("top_k", top_k, 1, integer=True)
        prune = self.rule.prune if prune is None else prune
        if threshold is None:
            rule = self.rule if top_k is None else replace(self.rule, decoding="top_k", top_k=top_k)
            return replace(rule, prune=prune)
        if self.rule.decision.single_label:
            raise ValueError(
                f"threshold={threshold}: this model predicts the most probable label of each level, or none, without a "
                "threshold; leave it out, or give top_k"
            )
        thresholds = per_level("threshold", threshold, self.taxonomy.num_levels)
        return replace(self.rule, decoding="threshold", thresholds=thresholds, top_k=top_k, prune=prune)

    def _stream(self, texts: Iterable[str], rule: DecisionRule, batch_size: int) -> Iterator[Prediction]:
        first = 0
        iterator = iter(texts)
        while chunk := list(itertools.islice(iterator, batch_size * _BATCHES_AT_ONCE)):
            ids = self.token_ids(chunk, first)
            found: list[Prediction] = [[]] * len(chunk)
            for rows, predictions in _in_batches(ids, batch_size, partial(self._decide, rule=rule)):
                for row, prediction in zip(rows, predictions, strict=True):
                    found[row] = prediction
            yield from found
            first += len(chunk)

    def token_ids(self, texts: Sequence[str], first: int = 0) -> list[list[int]]:
        """Return the token ids of each text, cut to the number of tokens that the model has room for.

        Args:
            texts: the texts.
            first: position of the first of them in the user's input, for error messages.

        Raises:
            ValueError: an entry of ``texts`` is not a string, or not valid Unicode.
        """
        for place, text in enumerate(texts, start=first):
            if not isinstance(text, str):
                raise ValueError(f"texts[{place}]: expected a string, got {type(text).__name__} {text!r}")
            if not is_unicode(text):
                raise ValueError(f"texts[{place}]: the text is not valid Unicode: {text!r}")
        return text_token_ids(self.tokenizer, texts, self.folder.system.text_budget)

    def _probabilities(self, ids: Sequence[Sequence[int]]) -> Tensor:
        nothing = np.array([], dtype=np.int32)
        examples = [Example(row, 0, np.array(text, dtype=np.int32), nothing) for row, text in enumerate(ids)]
        logits = self.score(self.collate(examples))
        if not logits.isfinite().all():
            raise ValueError("the model's scores are not finite numbers; try precision='float32'")
        return self.rule.probabilities(logits)

    def _decide(self, ids: Sequence[Sequence[int]], rule: DecisionRule) -> list[Prediction]:
        probabilities = self._probabilities(ids)
        nodes: list[list[int]] = [[] for _ in ids]
        for row, node in rule.predict(probabilities).nonzero().tolist():
            nodes[row].append(node)
        return [self._paths(*pair) for pair in zip(nodes, probabilities.tolist(), strict=True)]

    def _paths(self, nodes: list[int], scores: list[float]) -> Prediction:
        paths = [
            LabelPath(tuple(self.taxonomy.path_names(path)), tuple(round(scores[node], 6) for node in path))
            for path in self.taxonomy.label_paths(nodes)
        ]
        return sorted(paths, key=lambda path: -path.probabilities[-1])


def _check_texts(texts: object) -> None:
    if isinstance(texts, Mapping) or hasattr(texts, "columns"):
        hint = "give one column of it, such as table['text']"
    elif not hasattr(texts, "__iter__") or getattr(texts, "ndim", 1) == 0:
        hint = "give strings"
    else:
        return
    raise ValueError(f"texts: expected a text, or texts one after the other, got {type(texts).__name__}; {hint}")


def _in_batches(
    ids: Sequence[Sequence[int]], batch_size: int, run: Callable[[list[Sequence[int]]], Found]
) -> Iterator[tuple[npt.NDArray[np.int64], Found]]:
    """Yield the rows of each batch with what ``run`` finds; texts of similar length share one, the shortest come first.

    Raises:
        ValueError: there is too little memory for a batch.
    """
    order = np.argsort([len(text) for text in ids], kind="stable")
    for start in range(0, len(ids), batch_size):
        rows = order[start : start + batch_size]
        try:
            with torch.inference_mode():
                found = run([ids[row] for row in rows])
        except torch.OutOfMemoryError as error:
            raise ValueError(f"batch_size={batch_size}: too little memory; lower it") from error
        yield rows, found
