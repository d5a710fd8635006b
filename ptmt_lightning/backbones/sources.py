"""The sources of backbones: a model of a hub or a folder, or a small one with random weights."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from ptmt_lightning.backbones.backbone import Backbone
from ptmt_lightning.backbones.families import Form, family_of
from ptmt_lightning.backbones.learned import set_apart
from ptmt_lightning.backbones.new_heads import start_at_identity
from ptmt_lightning.backbones.vocabulary import word_tokenizer
from ptmt_lightning.backbones.weights import MisfitError, check_folder, check_parameters, check_sizes, load_weights
from ptmt_lightning.utils.checks import check_range
from ptmt_lightning.utils.hub import hub_source
from ptmt_lightning.utils.tokens import vocabulary_size

log = logging.getLogger(__name__)

_AUTO_CLASSES: dict[Form, Any] = {
    "encoder": AutoModelForMaskedLM,
    "decoder": AutoModelForCausalLM,
    "encoder-decoder": AutoModelForSeq2SeqLM,
}
_MOST_UNUSED_IDS = 2**16  # of a tokenizer, as the embedding matrix has a row for each
_SHOWN = 300  # characters of another library's message


@dataclass(frozen=True)
class Pretrained:
    """A pretrained model of a hub or of a local folder.

    Args:
        name: folder, or hub name; ``OWNER/NAME@REVISION`` takes a branch, tag or commit of the hub.
        max_length: longest sequence in tokens, template included; None for what the model allows.
        attention: attention implementation of Transformers (``sdpa``, ``eager``, ...); None for the fastest that the
            model has.
        freeze: whether to train prompts, label tokens and head only.
        lora_rank: rank of low-rank updates (LoRA) that are trained in place of the model's layers; needs the extra
            ``lora``. None to train the layers.
        lora_alpha: updates are scaled by ``lora_alpha / lora_rank``.
        lora_dropout: dropout probability of the updates' inputs.
    """

    name: str
    _: KW_ONLY
    max_length: int | None = None
    attention: str | None = None
    freeze: bool = False
    lora_rank: int | None = None
    lora_alpha: int = 16
    lora_dropout: float = 0.0

    def __post_init__(self) -> None:
        """Expand ``~`` in the name of a folder."""
        if self.name.startswith("~"):
            object.__setattr__(self, "name", str(Path(self.name).expanduser()))

    def load(self, texts: Iterable[str], *, whole: bool = False) -> tuple[Backbone, PreTrainedTokenizerBase, int]:
        """Return backbone, tokenizer and the longest sequence to use, in tokens.

        Of a trained PTMT model, the tokens of its prompts and labels are set apart in ``Backbone.learned``.

        Args:
            texts: not read; :class:`FromScratch` needs them.
            whole: leave a trained model's tokens where they are, as its predictions need them.

        Raises:
            ValueError: nothing usable under that name, an unsupported family, or a bad setting.
        """
        self._check_adapters()
        check_folder(self.name)
        source = hub_source(self.name)
        with _named(self.name, "config.json", source.hint):
            config = AutoConfig.from_pretrained(source.name, trust_remote_code=False, **source.options)
        source.tell()
        # The rest comes from the same commit, even if the hub has a newer one meanwhile.
        commit = source.commit()
        options = source.options | {"revision": commit or source.revision}
        family = family_of(config.model_type, self.name)
        check_sizes(config, self.name)
        tokenizer = read_tokenizer(source.name, **options)
        with _named(self.name, "config.json"), quiet_transformers():
            check_parameters(_AUTO_CLASSES[family.form], config, self.name)
        try:
            with quiet_transformers():
                model, missing = load_weights(
                    _AUTO_CLASSES[family.form], source.name, config, family, attn_implementation=self.attention,
                    dtype=torch.float32, trust_remote_code=False, **options,
                )  # fmt: skip
        except MisfitError:
            raise
        except (OSError, ValueError, TypeError, RuntimeError, SafetensorError, UnpicklingError) as error:
            raise _unusable_model_error(self.name, error, hint=source.hint) from error
        _check_special_tokens(tokenizer, family.form, self.name)
        scoring = model.get_output_embeddings()
        is_tied = scoring.weight is model.get_input_embeddings().weight
        if not is_tied:
            model.config.tie_word_embeddings = False  # whatever the file says, as a resize would tie them
        outputs = {f"{name}.weight" for name, module in model.named_modules() if module is scoring}
        has_head = not (family.head_modules and any(key.startswith(family.head_modules) for key in missing))
        has_outputs = is_tied or outputs.isdisjoint(missing)
        if not has_head:
            start_at_identity(family.head(model))
            log.warning("%s has no trained masked-LM head: a new one starts at the identity", self.name)
        if not has_outputs:
            with torch.no_grad():
                scoring.weight.copy_(model.get_input_embeddings().weight)
            log.warning("%s has no trained output matrix: a new one starts as the input matrix", self.name)
        backbone = Backbone(model, trained_head=has_head and has_outputs, missing=missing)
        backbone.commit = commit
        if self.freeze:
            backbone.freeze()
        if self.lora_rank is not None:
            backbone.add_adapters(self.lora_rank, self.lora_alpha, self.lora_dropout)
        backbone, tokenizer, max_length = _fit_to_tokenizer(backbone, tokenizer, self.max_length, self.name)
        if not whole:
            with quiet_transformers():
                tokenizer = set_apart(backbone, tokenizer, partial(source.file, commit=commit), self.name)
        return backbone, tokenizer, max_length

    def _check_adapters(self) -> None:
        if self.lora_rank is None:
            return
        check_range("backbone.lora_rank", self.lora_rank, 1, integer=True)
        check_range("backbone.lora_alpha", self.lora_alpha, 1, integer=True)
        check_range("backbone.lora_dropout", self.lora_dropout, 0, 1, high_open=True)
        if self.freeze:
            raise ValueError(
                f"backbone.lora_rank={self.lora_rank}: expected null with backbone.freeze=true, which trains no "
                "updates of the model; leave one of them out"
            )
        if importlib.util.find_spec("peft") is None:
            raise ValueError(
                f"backbone.lora_rank={self.lora_rank} needs the package peft; install it with "
                "pip install 'ptmt_lightning[lora]'"
            )


@dataclass(frozen=True, kw_only=True)
class FromScratch:
    """A small BERT with random weights and a vocabulary made from the training texts, for samples and tests.

    Args:
        name: name of the backbone in messages and tables.
        hidden_size: size of hidden states.
        num_layers: number of layers.
        num_heads: number of attention heads.
        intermediate_size: size of the feed-forward networks' inner layer.
        vocabulary_size: number of words, the most frequent ones; others are spelt in characters.
        max_length: longest sequence, in tokens.
        dropout: dropout probability of hidden states and of attention.
    """

    name: str = "tiny"
    hidden_size: int = 128
    num_layers: int = 2
    num_heads: int = 4
    intermediate_size: int = 256
    vocabulary_size: int = 2000
    max_length: int = 128
    dropout: float = 0.1

    def load(self, texts: Iterable[str]) -> tuple[Backbone, PreTrainedTokenizerBase, int]:
        """Return backbone, tokenizer and the longest sequence to use, in tokens.

        Args:
            texts: the training texts, whose words make the vocabulary.

        Raises:
            ValueError: a setting that is out of range, or a folder's name, as if its model were opened.
        """
        check_range("backbone.vocabulary_size", self.vocabulary_size, 1, integer=True)
        if (Path(self.name) / "config.json").is_file():
            raise ValueError(
                f"backbone.name={self.name!r}: a model's folder, which backbone=tiny does not open; set backbone=bert"
            )
        tokenizer = word_tokenizer(texts, self.vocabulary_size)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            intermediate_size=self.intermediate_size,
            max_position_embeddings=self.max_length,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            pad_token_id=tokenizer.pad_token_id,
        )
        model = BertForMaskedLM(config)
        model.name_or_path = self.name
        backbone = Backbone(model, trained_head=False, is_pretrained=False)
        return _fit_to_tokenizer(backbone, tokenizer, self.max_length, self.name)


def read_tokenizer(name: str, **options: Any) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a folder or of a hub; ``options`` are further ones of ``from_pretrained``.

    Raises:
        ValueError: there is none, its file is broken, or its ids have gaps that are larger than a vocabulary.
    """
    with _named(name, "tokenizer.json"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **options)
        size, known = vocabulary_size(tokenizer), len(tokenizer.get_vocab())
        if size > 2 * known + _MOST_UNUSED_IDS:
            raise ValueError(f"ids up to {size - 1} for {known} tokens")
    return tokenizer


@contextmanager
def _named(name: str, file: str, hint: str = "") -> Iterator[None]:
    """Turn whatever Transformers raises over a broken file into a message that names the file.

    Transformers takes a file's content for granted, so that any kind of error may come of it; the parser of tokenizers
    raises bare exceptions.
    """
    try:
        yield
    except MisfitError:
        raise
    except Exception as error:
        raise _unusable_model_error(name, error, file, hint) from error


def _fit_to_tokenizer(
    backbone: Backbone, tokenizer: PreTrainedTokenizerBase, max_length: int | None, name: str
) -> tuple[Backbone, PreTrainedTokenizerBase, int]:
    """Fit the vocabulary of a backbone to its tokenizer; return both and the longest sequence to use, in tokens.

    Raises:
        ValueError: ``max_length`` is more than the model's position table holds.
    """
    size, rows = vocabulary_size(tokenizer), len(backbone.token_embeddings)
    if rows < size:
        log.warning("%s has rows for %d tokens, its tokenizer has %d: the others start at random", name, rows, size)
        backbone.missing += (f"{size - rows} rows of the embedding matrix",)
    if 2 * size < rows:
        log.warning("%s has rows for %d tokens, its tokenizer has %d: is it another model's?", name, rows, size)
    if rows != size:  # mostly a matrix padded for speed: new tokens follow the vocabulary
        backbone.model.resize_token_embeddings(size, mean_resizing=False)
    longest = backbone.max_positions
    if max_length is not None:
        check_range("backbone.max_length", max_length, 1, integer=True)
        if max_length > longest and backbone.family.trained_length is None:
            raise ValueError(
                f"backbone.max_length={max_length}: {name} holds {longest} positions; set it to at most that"
            )
    return backbone, tokenizer, max_length or longest


def _check_special_tokens(tokenizer: PreTrainedTokenizerBase, form: Form, name: str) -> None:
    """Refuse a tokenizer that does not know which of its tokens begin, end, pad and mask a text.

    Raises:
        ValueError: names what is missing.
    """
    wanted = {
        "encoder": ("cls_token", "sep_token", "pad_token", "mask_token"),
        "encoder-decoder": ("eos_token", "pad_token"),
        "decoder": () if tokenizer.eos_token_id is not None else ("pad_token",),  # it is padded with its last token
    }
    missing = [token for token in wanted[form] if getattr(tokenizer, f"{token}_id") is None]
    if missing:
        raise ValueError(
            f"backbone.name={name!r}: the tokenizer has no {', '.join(missing)}; name them in its "
            'tokenizer_config.json, as in "pad_token": "[PAD]", or take the folder of the model that it was made from'
        )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence the progress bars and reports of Transformers; the caller logs what matters in them."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()


def _unusable_model_error(name: str, error: Exception, file: str | None = None, hint: str = "") -> ValueError:
    if hint:  # Transformers' own text is about its cache and its addresses
        return ValueError(f"backbone.name={name!r}{hint}; connect, or give a local folder")
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, (KeyError, RecursionError, TypeError, AttributeError)):  # whose text is about code
        reason = f"{type(error).__name__}: {reason}"
    reason = reason if len(reason) <= _SHOWN else f"{reason[:_SHOWN]}..."
    if file and (Path(name) / file).exists():
        reason = f"{file} can't be used ({reason})"
    if isinstance(error, UnpicklingError):  # whose own text advises to run what the file holds
        reason = "its weights are pickled with more than tensors, which could run code; save them as safetensors"
    return ValueError(
        f"backbone.name={name!r}: {reason}; expected a folder or hub name of a language model with "
        "config.json, weights (model.safetensors) and tokenizer"
    )
