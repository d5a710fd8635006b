"""Batches of documents of similar length, reproducible for a seed and split evenly over the ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

Rows = npt.NDArray[np.int64]
_POOL = 50  # global batches that are sorted together: enough for little padding, few enough to stay random


class LengthBatchSampler(Sampler[list[tuple[int, int]]]):
    """Yields the batches of one rank, each as a list of ``(epoch, row)`` pairs.

    With ``shuffle`` (training), the rows are shuffled, sorted by length within pools of 50 global batches and cut into
    global batches, which are shuffled again. All ranks get equally many batches, and rows of similar length at each
    step. If the last global batch has fewer rows than there are ranks, it is left out of that epoch.

    Without ``shuffle`` (evaluation), all ranks together yield each row exactly once. Each rank yields equally many
    batches, so that no collective operation waits for a rank that has finished. Their order is random but fixed: a
    Trainer that stops after a few batches has seen short and long documents.

    Args:
        lengths: ``[number of rows]``, in tokens.
        batch_size: rows of one rank and step.
        shuffle: whether the batches are for training.
        seed: decides, with the epoch, how training rows are shuffled.
        rows: the rows to draw from (default: all).
        num_replicas: the number of ranks.
        rank: the rank whose batches are yielded.

    Raises:
        ValueError: there are fewer rows than ranks.
    """

    def __init__(
        self,
        lengths: Rows,
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        rows: Rows | None = None,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        self.lengths, self.batch_size, self.shuffle, self.seed = lengths, batch_size, shuffle, seed
        self.rows = np.arange(len(lengths)) if rows is None else rows
        self.num_replicas, self.rank = num_replicas, rank
        self.epoch = 0
        self._num_skipped = 0
        if len(self.rows) < num_replicas:
            raise ValueError(
                f"{len(self.rows)} document(s) for {num_replicas} devices: expected at least one a device; "
                "lower trainer.devices or raise dataset.train_fraction"
            )

    @property
    def sampler(self) -> LengthBatchSampler:
        """This sampler itself: Lightning calls ``set_epoch`` only on the ``sampler`` of a batch sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next; Lightning calls this at the start of each epoch."""
        self.epoch = epoch

    def start_at(self, epoch: int, num_batches: int) -> None:
        """Resume within ``epoch``: let the next iteration leave out its first ``num_batches`` batches.

        If no batch of that epoch is left, the next iteration is that of the following epoch, from its start.
        """
        is_over = num_batches >= len(self)
        self.epoch, self._num_skipped = (epoch + 1, 0) if is_over else (epoch, num_batches)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        batches = self._training_batches() if self.shuffle else self._evaluation_batches()
        first, self._num_skipped = self._num_skipped, 0
        for batch in batches[first:]:
            yield [(self.epoch, row) for row in batch.tolist()]

    def __len__(self) -> int:
        if self.shuffle:
            full, rest = divmod(len(self.rows), self.batch_size * self.num_replicas)
            return full + (rest >= self.num_replicas)
        return self._num_evaluation_batches

    def _training_batches(self) -> list[Rows]:
        rng = np.random.default_rng((self.seed, self.epoch))
        global_batch = self.batch_size * self.num_replicas
        rows = rng.permutation(self.rows)
        rest = len(rows) % global_batch
        if rest < self.num_replicas:
            rows = rows[: len(rows) - rest]  # cut before sorting, so that documents of any length are left out
        pools = (rows[i : i + _POOL * global_batch] for i in range(0, len(rows), _POOL * global_batch))
        ordered = np.concatenate([pool[np.argsort(self.lengths[pool], kind="stable")] for pool in pools])
        batches = [ordered[i : i + global_batch] for i in range(0, len(ordered), global_batch)]
        return [batches[i][self.rank :: self.num_replicas] for i in rng.permutation(len(batches))]

    def _evaluation_batches(self) -> list[Rows]:
        longest_first = self.rows[np.argsort(-self.lengths[self.rows], kind="stable")]
        batches = np.array_split(longest_first[self.rank :: self.num_replicas], self._num_evaluation_batches)
        return [batches[i] for i in np.random.default_rng(0).permutation(len(batches))]

    @property
    def _num_evaluation_batches(self) -> int:
        # The rank with the most rows decides. In batches of one row, a rank with one row less would lack a batch.
        batch_size = self.batch_size if self.num_replicas == 1 else max(self.batch_size, 2)
        return math.ceil(math.ceil(len(self.rows) / self.num_replicas) / batch_size)
