"""The LightningDataModule of every data set: a folder of JSON-lines files, tokenised once and batched by length."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import lightning as L
import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from ptmt_lightning.data.cache import TokenizedDocuments, tokenized
from ptmt_lightning.data.document import SPLITS, Example, read_documents, split_file
from ptmt_lightning.data.hierarchy import read_taxonomy
from ptmt_lightning.data.sampler import LengthBatchSampler
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils.checks import check_range
from ptmt_lightning.utils.digests import digest

BatchPer = Literal["device", "step"]
Collator = Callable[[Sequence[Example]], Any]


class HTCDataModule(L.LightningDataModule):
    """Data from a folder with ``{train,val,test}.jsonl`` (plain or ``.gz``) and ``taxonomy.tsv``.

    ``test`` and ``taxonomy.tsv`` may be missing. The model decides how texts are cut and batched, so :meth:`connect`
    must be called before a Trainer uses the data.

    Args:
        path: the folder.
        name: the name of the data in tables (default: that of the folder).
        batch_size: documents of a training step.
        batch_per: ``device``: each device takes so many at a step; ``step``: they are split over the devices.
        eval_batch_size: documents of one device at an evaluation step (default: twice ``batch_size``).
        train_fraction: share of the training split to use, drawn with ``seed``; a smaller share is part of a larger.
        seed: decides which documents are drawn, and their order in training.
        num_workers: processes that load batches, for each device; 0 loads them in the main process.
        pin_memory: whether batches are put into page-locked memory, from which a GPU copies faster.
        pad_to_multiple_of: batches are padded to a length that is a multiple of so many tokens.
        cache_dir: where tokenised splits are kept.

    Raises:
        ValueError: a setting is out of its range; the message names it.
    """

    def __init__(
        self,
        path: str,
        *,
        name: str | None = None,
        batch_size: int = 32,
        batch_per: BatchPer = "device",
        eval_batch_size: int | None = None,
        train_fraction: float = 1.0,
        seed: int = 0,
        num_workers: int = 0,
        pin_memory: bool = False,
        pad_to_multiple_of: int = 1,
        cache_dir: str = "data/cache",
    ) -> None:
        super().__init__()
        check_range("dataset.batch_size", batch_size, 1, integer=True)
        if batch_per not in get_args(BatchPer):
            raise ValueError(f"dataset.batch_per={batch_per!r}: expected device or step; set dataset.batch_per to one")
        if eval_batch_size is not None:
            check_range("dataset.eval_batch_size", eval_batch_size, 1, integer=True)
        check_range("dataset.train_fraction", train_fraction, 0, 1, low_open=True)
        check_range("impl.num_workers", num_workers, 0, integer=True)
        check_range("impl.pad_to_multiple_of", pad_to_multiple_of, 1, integer=True)
        self.name, self.path, self.cache_dir = (
            name or os.fsencode(Path(path).name).decode(errors="replace"),  # whatever the locale
            Path(path).expanduser(),
            Path(cache_dir).expanduser(),
        )
        self.batch_size, self.batch_per, self.eval_batch_size = batch_size, batch_per, eval_batch_size or 2 * batch_size
        self.train_fraction, self.seed = train_fraction, seed
        self.num_workers, self.pin_memory, self.pad_to_multiple_of = num_workers, pin_memory, pad_to_multiple_of
        self._splits: dict[str, TokenizedDocuments] = {}
        self._collators: dict[bool, Collator] = {}
        self._start = 0, 0  # epoch to begin with, and how many of its batches a resumed run has seen

    def prepare_data(self) -> None:
        """Check that the folder holds what training needs; change nothing.

        Raises:
            ValueError: something is missing; the message says what to put where.
        """
        expected = "expected a folder with train.jsonl, val.jsonl (or .gz) and, if there are, test.jsonl, taxonomy.tsv"
        if not self.path.is_dir():
            raise ValueError(f"dataset.path={str(self.path)!r}: no such folder; {expected}")
        missing = [f"{split}.jsonl" for split in ("train", "val") if split_file(self.path, split) is None]
        if missing:
            raise ValueError(f"dataset.path={str(self.path)!r}: no {', '.join(missing)} there; {expected}")

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """The taxonomy in ``taxonomy.tsv`` of the folder; without that file, the tree of the documents' label paths."""
        return read_taxonomy(self.path)

    def has_split(self, split: str) -> bool:
        """Return whether the data have a split of that name."""
        return split_file(self.path, split) is not None

    def texts(self, split: str) -> Iterator[str]:
        """Return an iterator over the raw texts of a split.

        Raises:
            ValueError: the folder has no such split.
        """
        path = split_file(self.path, split)
        if path is None:
            raise ValueError(f"dataset.path={str(self.path)!r}: no {split}.jsonl (or .gz) there")
        return (document.text for document in read_documents(path, split, self.taxonomy))

    def labelled_texts(self, split: str) -> tuple[list[str], npt.NDArray[np.bool_]]:
        """Return the texts of a split and their nodes, bool ``[N, V]``; for ``train``, of those that are drawn."""
        documents = self._used(split)
        targets = np.zeros((len(documents), len(self.taxonomy)), dtype=bool)
        targets[documents.nodes()] = True
        drawn = set(self._train_rows.tolist()) if split == "train" else range(len(documents))
        return [text for row, text in enumerate(self.texts(split)) if row in drawn], targets

    def connect(
        self,
        *,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
        train_collator: Collator,
        eval_collator: Collator,
    ) -> None:
        """Tokenise all splits, or open their caches, and take over the collators of a model.

        Args:
            tokenizer: the tokenizer of the model.
            max_tokens: texts are cached up to so many tokens; the collator cuts them to what its template leaves.
            train_collator: makes a training batch of examples.
            eval_collator: makes a batch for validation or test.
        """
        self._splits = self._tokenized_splits(tokenizer, max_tokens)
        self._collators = {True: train_collator, False: eval_collator}

    def _tokenized_splits(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> dict[str, TokenizedDocuments]:
        return {
            split: self._tokenized(path, split, tokenizer, max_tokens)
            for split in SPLITS
            if (path := split_file(self.path, split)) is not None
        }

    def _tokenized(
        self, path: Path, name: str, tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> TokenizedDocuments:
        return tokenized(
            path,
            read_documents(path, name, self.taxonomy),
            taxonomy=self.taxonomy,
            tokenizer=tokenizer,
            max_tokens=max_tokens,
            cache_dir=self.cache_dir,
        )

    @property
    def is_connected(self) -> bool:
        """Whether :meth:`connect` has given the data a tokenizer and collators."""
        return bool(self._collators)

    @property
    def fingerprint(self) -> str:
        """A digest of all splits' documents and of the taxonomy: equal for equal data alone, whatever its name."""
        splits = {split: documents.digest for split, documents in self._splits.items()}
        return digest([self.taxonomy.fingerprint, splits])[:16]

    @property
    def protocol(self) -> str:
        """How the splits were made, in words, for ``result.json``."""
        return "splits of the data folder"

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds of the data: their fingerprint."""
        return {"fingerprint": self.fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to go on with other data than those of a checkpoint.

        Raises:
            ValueError: documents have changed since the run began.
        """
        if state_dict["fingerprint"] != self.fingerprint:
            raise ValueError(
                f"dataset.path={str(self.path)!r}: its documents have changed since the run began, and some would be "
                "learnt twice, some never; restore the files, or start the run anew"
            )

    def document_ids(self, split: str, rows: Sequence[int]) -> list[str]:
        """Return the ids of the documents in the given rows of a split, for messages and predictions."""
        return self._splits[split].ids(rows)

    def split_ids(self) -> dict[str, list[str]]:
        """Return the ids of the documents of each split; for ``train``, only of those that ``train_fraction`` draws."""
        return {
            split: documents.ids(self._train_rows if split == "train" else None)
            for split, documents in self._splits.items()
        }

    def num_documents(self, split: str) -> int:
        """Return the number of documents of a split; for ``train``, only of those that ``train_fraction`` draws."""
        return len(self._train_rows) if split == "train" else len(self._splits[split])

    def most_labels_at_a_level(self, split: str) -> tuple[int, str, int]:
        """Return the largest number of true labels on one level, with the document's id and the level (from 1)."""
        rows, nodes = self._splits[split].nodes()
        num_levels = self.taxonomy.num_levels
        keys = rows * num_levels + np.array(self.taxonomy.levels)[nodes] - 1
        counts = np.bincount(keys)
        where = int(counts.argmax())
        return int(counts[where]), self.document_ids(split, [where // num_levels])[0], where % num_levels + 1

    def label_counts(self, split: str) -> npt.NDArray[np.int64]:
        """Return the number of documents of each node, ``[V]``; for ``train``, of those that are drawn."""
        _, nodes = self._used(split).nodes()
        return np.bincount(nodes, minlength=len(self.taxonomy))

    def has_one_path(self, split: str) -> bool:
        """Return whether each document of a split has exactly one label path."""
        rows, _ = self._used(split).nodes()
        return len(np.unique(rows)) == self.num_documents(split) and self.most_labels_at_a_level(split)[0] == 1

    def ends_at_leaves(self, split: str) -> bool:
        """Return whether all paths of a split's documents lead down to a leaf of the taxonomy."""
        rows, nodes = self._used(split).nodes()
        parents, children = self.taxonomy.edge_index().numpy()
        size = len(self.taxonomy)
        parent_of = csr_array((np.ones(len(parents)), (children, parents)), shape=(size, size))
        labels = csr_array((np.ones(len(rows)), (rows, nodes)), shape=(self.num_documents(split), size))
        has_child = labels @ parent_of  # above 0 where a document has a child of the node
        is_inner = np.isin(nodes, parents)
        inner = has_child[rows[is_inner], nodes[is_inner]] if is_inner.any() else np.empty(0)  # SciPy's would be sparse
        return bool((inner > 0).all())

    def text_lengths(self, split: str) -> npt.NDArray[np.int64]:
        """Return the number of tokens of each text, at most the ``max_tokens`` that :meth:`connect` was given."""
        return self._used(split).lengths

    def _used(self, split: str) -> TokenizedDocuments:
        documents = self._splits[split]
        return documents.select(self._train_rows) if split == "train" else documents

    @cached_property
    def _train_rows(self) -> npt.NDArray[np.int64]:
        size = len(self._splits["train"])
        count = max(1, round(self.train_fraction * size))
        return np.sort(np.random.default_rng(self.seed).permutation(size)[:count])

    def num_batches(self, split: str, num_devices: int) -> int:
        """Return the number of batches that each of the devices takes of a split.

        Raises:
            ValueError: there are fewer documents than devices.
        """
        is_train = split == "train"
        size = self.device_batch_size(num_devices) if is_train else self.eval_batch_size
        rows = np.arange(self.num_documents(split))
        return len(
            LengthBatchSampler(rows, batch_size=size, shuffle=is_train, seed=self.seed, num_replicas=num_devices)
        )

    def train_dataloader(self) -> DataLoader[Example]:
        """Return a loader of the training documents that ``train_fraction`` draws."""
        return self._loader("train", training=True)

    def val_dataloader(self) -> DataLoader[Example]:
        """Return a loader of the validation split."""
        return self._loader("val", training=False)

    def test_dataloader(self) -> DataLoader[Example]:
        """Return a loader of the test split."""
        return self._loader("test", training=False)

    def _loader(self, split: str, *, training: bool) -> DataLoader[Example]:
        documents = self._splits[split]
        overfits = bool(getattr(self.trainer, "overfit_batches", 0))  # then the same documents must come each epoch
        num_devices = self.trainer.world_size if self.trainer else 1
        sampler = LengthBatchSampler(
            documents.lengths,
            rows=self._train_rows if training else None,
            batch_size=self.device_batch_size(num_devices) if training else self.eval_batch_size,
            shuffle=training and not overfits,
            seed=self.seed,
            num_replicas=num_devices,
            rank=self.trainer.global_rank if self.trainer else 0,
        )
        if training:
            sampler.start_at(*self._start)
        return DataLoader(
            documents,  # type: ignore[arg-type]
            batch_sampler=sampler,
            collate_fn=self._collators[training],
            num_workers=self.num_workers,
            pin_memory=self.pin_memory,
            persistent_workers=self.num_workers > 0,
        )

    def device_batch_size(self, num_devices: int) -> int:
        """Return the number of documents that each device takes at a training step.

        Raises:
            ValueError: the documents of a step can't be split evenly over the devices.
        """
        if self.batch_per == "device":
            return self.batch_size
        size, rest = divmod(self.batch_size, num_devices)
        if rest or not size:
            raise ValueError(
                f"dataset.batch_size={self.batch_size} with batch_per=step: expected a multiple of the number of "
                f"devices, {num_devices}; change one of them"
            )
        return size

    def start_at(self, epoch: int, num_batches: int) -> None:
        """Resume training within ``epoch``, after its first ``num_batches`` batches."""
        self._start = epoch, num_batches
