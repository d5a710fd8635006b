"""Explanations: which words of a text speak for a label, and which against it.

Integrated gradients (Sundararajan et al. 2017) of the label's log odds over the embeddings of the text's tokens. The
values of all words add up to the difference between the log odds of the text and those of a text of unknown words; only
roughly with ``hbgl`` and ``gacaps``, which choose labels and capsules on the way.

Shape legend: ``n`` texts between the two, ``L`` sequence length, ``E`` size of token embeddings, ``V`` nodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ptmt_lightning.backbones import Backbone
from ptmt_lightning.data.document import Example
from ptmt_lightning.inference.classifier import Classifier
from ptmt_lightning.inference.engines import TorchScorer
from ptmt_lightning.taxonomy.files import STEP
from ptmt_lightning.utils.tokens import token_offsets

# A character of a script that is written without spaces; letters and digits; any other sign.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+|[^\w\s]")
_STEPS = 32  # texts between unknown words and the text
_TEXTS_AT_ONCE = 8
_MOST = 20  # predicted labels that are explained, if no labels are named


class Word(NamedTuple):
    """A word of a text, and by how much it raises (or lowers, below 0) the log odds of a label."""

    text: str
    start: int  # place of its first character in the text
    value: float


class LabelExplanation(NamedTuple):
    """A label of a text, and what each word says about it."""

    path: tuple[str, ...]  # from the top level down to the label
    probability: float
    words: list[Word]  # in the order of the text, as far as the model reads it

    def strongest(self, number: int) -> list[Word]:
        """Return the words with the largest values, either way, the largest first."""
        return sorted(self.words, key=lambda word: -abs(word.value))[:number]

    def to_json(self) -> dict[str, Any]:
        """Return the explanation as the command line and the server give it."""
        words = [{"word": word.text, "start": word.start, "value": round(word.value, 4)} for word in self.words]
        return {"path": list(self.path), "probability": self.probability, "words": words}


class Explainer:
    """Explains the labels that a trained model gives to a text.

    Args:
        classifier: the model, of any system, not exported.

    Raises:
        ValueError: the model is exported, so that it has no gradients, or the package captum is not installed.
    """

    def __init__(self, classifier: Classifier) -> None:
        if not isinstance(classifier.score, TorchScorer):
            raise ValueError(
                f"{classifier.folder.path} is exported, and an exported model can't be explained; give the folder "
                "model/ of its run"
            )
        try:
            from captum.attr import IntegratedGradients  # comes with the extra "explain"
        except ImportError as error:
            raise ValueError(
                "explanations need the package captum; install it with pip install 'ptmt_lightning[explain]'"
            ) from error
        self.classifier, self.scorer, self._method = classifier, classifier.score, IntegratedGradients

    def explain(self, text: str, labels: Sequence[Sequence[str]] | None = None) -> list[LabelExplanation]:
        """Explain labels of a text.

        Args:
            text: the text.
            labels: paths of labels, from the top level down, each to be explained in its last label; None for the
                labels that the model predicts, of more than 20 the most probable ones.

        Returns:
            An explanation for each label, from the top level down. None where nothing is predicted.

        Raises:
            ValueError: ``text`` is no text, or a label is not one of the model's.
        """
        [ids] = self.classifier.token_ids([text])
        probabilities = self.classifier.probabilities(text)
        taxonomy = self.classifier.taxonomy
        if labels is None:
            predicted = self.classifier.rule.predict(probabilities).nonzero()[:, 1].tolist()
            nodes = sorted(sorted(predicted, key=lambda node: -probabilities[0, node].item())[:_MOST])
        else:
            nodes = sorted({taxonomy.encode([path])[-1] for path in labels})
        words = _words(self.classifier, text, len(ids))
        found = []
        for node in nodes:
            values = self._token_values(ids, node)
            scored = [Word(word, start, float(values[tokens].sum())) for word, start, tokens in words]
            path = tuple(taxonomy.path_names(taxonomy.path_to(node)))
            found.append(LabelExplanation(path, round(probabilities[0, node].item(), 6), scored))
        return found

    def _token_values(self, ids: Sequence[int], node: int) -> Tensor:
        """Return what each token of a text adds to the log odds of a node, ``[number of tokens]``."""
        if not ids:
            return torch.zeros(0)
        nothing = np.array([], dtype=np.int32)
        batch = self.classifier.collate([Example(0, 0, np.array(ids, dtype=np.int32), nothing)])
        backbone = self.scorer.backbone
        input_ids = batch.input_ids.to(backbone.token_embeddings.device)
        place = _place(input_ids[0].tolist(), ids)
        with torch.no_grad():
            embedded = backbone.embed_tokens(input_ids)
            unknown = backbone.embed_tokens(torch.full_like(input_ids, _unknown_id(self.classifier)))
        without = embedded.clone()
        without[:, place] = unknown[:, place]

        def log_odds(embeddings: Tensor) -> Tensor:
            with _reading(backbone, input_ids, embeddings):
                logits = self.scorer(_repeated(batch, len(embeddings)))
            decision = self.classifier.rule.decision
            return decision.log_odds(logits, self.classifier.taxonomy.level_sizes)

        with torch.enable_grad():
            values = self._method(log_odds).attribute(
                embedded, without, target=node, n_steps=_STEPS, internal_batch_size=_TEXTS_AT_ONCE
            )
        summed: Tensor = values[0, place].sum(dim=-1)
        return summed.float().cpu()


def describe(found: Sequence[LabelExplanation], number: int = 5) -> str:
    """Return explanations as lines of text: of each label the words that say the most for it, and against it.

    Args:
        found: the explanations.
        number: words that are named of each kind.
    """
    lines = []
    for label in found:
        lines.append(f"{STEP.join(label.path)}  {label.probability:.4f}")
        for kind, sign in (("for", 1), ("against", -1)):
            named = [word for word in label.strongest(len(label.words)) if word.value * sign > 0][:number]
            if named:
                lines.append(f"  {kind + ':':9}" + "  ".join(f"{word.text} {word.value:+.2f}" for word in named))
    return "\n".join(lines) or "no label is predicted"


@contextmanager
def _reading(backbone: Backbone, input_ids: Tensor, embeddings: Tensor) -> Iterator[None]:
    """Let the backbone read embeddings ``[n, L, E]`` where it would read those of the tokens ``[1, L]``."""
    embed_tokens = backbone.embed_tokens

    def given(ids: Tensor) -> Tensor:
        is_text = ids.shape[1:] == input_ids.shape[1:] and bool((ids == input_ids).all())
        return embeddings if is_text else embed_tokens(ids)

    backbone.embed_tokens = given  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        del backbone.embed_tokens


def _repeated(batch: Any, number: int) -> Any:
    """Return a batch with its one document so many times."""
    fields = {
        name: field.expand(number, *field.shape[1:])
        for name, field in batch._asdict().items()
        if _is_by_document(field)
    }
    return batch._replace(**fields)


def _is_by_document(field: object) -> bool:
    return isinstance(field, Tensor) and field.dim() > 0 and len(field) == 1


def _unknown_id(classifier: Classifier) -> int:
    """Return the token that stands for an unknown word: the mask where there is one."""
    tokenizer = classifier.tokenizer
    known = (tokenizer.mask_token_id, tokenizer.unk_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id)
    found: int = next(token for token in known if token is not None)
    return found


def _place(sequence: Sequence[int], ids: Sequence[int]) -> slice:
    """Return where the text's tokens are in the sequence that the model reads."""
    size = len(ids)
    start = next(i for i in range(len(sequence) - size + 1) if list(sequence[i : i + size]) == list(ids))
    return slice(start, start + size)


def _words(classifier: Classifier, text: str, num_tokens: int) -> list[tuple[str, int, list[int]]]:
    """Return the words of a text that the model reads, each with its place and the tokens that begin in it."""
    offsets = token_offsets(classifier.tokenizer, text, num_tokens)
    spans = [match.span() for match in _WORD.finditer(text)]
    tokens: list[list[int]] = [[] for _ in spans]
    word = 0
    for token, (start, end) in enumerate(offsets):
        start += len(text[start:end]) - len(text[start:end].lstrip())  # byte-level tokens begin with their space
        while word < len(spans) - 1 and spans[word][1] <= start:
            word += 1
        if spans and spans[word][0] <= start < spans[word][1]:
            tokens[word].append(token)
    return [(text[start:end], start, own) for (start, end), own in zip(spans, tokens, strict=True) if own]
