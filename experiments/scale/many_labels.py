"""Measures what thousands of labels cost beside 145 of them: a training step, its memory, prediction, and metrics.

    python experiments/scale/many_labels.py --backbone NAME_OR_FOLDER

Taxonomies are ragged trees of five levels with names of real words. Each batch goes through the model of 145 labels and
through the larger one before the next batch, in changing order, so that other load on the machine affects both alike.
Memory is the peak of a process that makes three steps.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ptmt_lightning.backbones import Pretrained
from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.metrics import HierarchicalMetrics
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.training.build import build

SMALL = 145
SHARES = (0.005, 0.03, 0.2, 0.4)  # of the nodes that are on each of the upper levels; the rest is on the fifth
MAX_NORM = 5.0
WORDS = 60  # of a text
# What names of labels and texts are made of.
KINDS = (
    "digital", "wireless", "portable", "garden", "kitchen", "outdoor", "vintage", "organic", "electric", "leather",
    "wooden", "compact", "industrial", "medical", "ceramic", "marine", "solar", "acoustic", "ergonomic", "disposable",
    "thermal", "vegan", "antique", "magnetic", "professional", "children's",
)  # fmt: skip
THINGS = (
    "camera", "speaker", "chair", "lamp", "knife", "bicycle", "tent", "guitar", "keyboard", "helmet", "jacket", "boot",
    "mixer", "drill", "brush", "candle", "mirror", "carpet", "bottle", "printer", "monitor", "cable", "charger",
    "backpack", "violin", "razor", "blanket", "toaster", "ladder", "whistle", "compass", "telescope", "scarf", "wallet",
    "pencil", "notebook", "puzzle", "doll", "kite", "drum", "flute", "racket", "skate", "glove", "sensor", "valve",
    "filter", "pump", "battery", "sofa",
)  # fmt: skip


def main() -> None:
    """Measure each size, and write ``results.csv``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, help="name or folder of a BERT-type model")
    parser.add_argument("--labels", type=int, nargs="+", default=[1_000, 10_000, 30_000])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only-memory-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.only_memory_of:
        print(json.dumps(_peak(options)))
        return
    small = _Setup(SMALL, options)
    memory = _memory(SMALL, options)
    rows: list[tuple[str, int, float, float]] = []
    for size in options.labels:
        large = _Setup(size, options)
        times = _side_by_side(large.step, small.step, options)
        rows.append(("step_over_145", size, *_ratio(*times)))
        times = _side_by_side(small.predict, large.predict, options)  # of throughputs
        rows.append(("predict_over_145", size, *_ratio(*times)))
        rows.append(("metrics_over_numpy", size, *_ratio(*_metrics(large.taxonomy, options))))
        rows.append(("memory_over_145", size, _memory(size, options) / memory, 0.0))
        print(*rows[-4:], sep="\n", flush=True)
    table = pd.DataFrame(rows, columns=["measure", "setting", "value", "spread"])
    how = f"{WORDS} words, batch {options.batch_size}, cpu x {options.threads} threads"
    table["setting"] = [f"{size} labels, {how}" for size in table["setting"]]
    table.insert(3, "unit", "ratio")
    table.to_csv(Path(__file__).with_name("results.csv"), index=False, float_format="%.3f")


def taxonomy_of(size: int) -> list[list[str]]:
    """Return the path of each node of a random tree."""
    draw = random.Random(size)
    levels: list[list[list[str]]] = [[[]]]
    for level, share in enumerate((*SHARES, 1.0)):
        left = size - sum(map(len, levels[1:]))
        paths: dict[tuple[str, ...], None] = {}
        while len(paths) < (left if share == 1 else max(3, round(share * size))):
            name = f"{draw.choice(KINDS)} {draw.choice(THINGS)}"
            name = name if level < 3 else f"{name} and {draw.choice(THINGS)}"
            paths[*draw.choice(levels[-1]), name] = None
        levels.append([list(path) for path in paths])
    return [path for paths in levels[1:] for path in paths]


class _Setup:
    """A model for so many labels, in training, and its batches."""

    def __init__(self, size: int, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        paths = taxonomy_of(size)
        with tempfile.TemporaryDirectory() as folder:
            Taxonomy.from_paths(paths).to_tsv(Path(folder, "taxonomy.tsv"))
            draw = random.Random(0)
            for split, number in (
                ("train", options.batch_size * (options.batches + 1)),
                ("val", options.batch_size * (options.batches + 1)),
            ):
                documents = [
                    {
                        "text": " ".join(draw.choice((*KINDS, *THINGS)) for _ in range(WORDS)),
                        "labels": [draw.choice(paths)],
                    }
                    for _ in range(number)
                ]
                lines = "".join(f"{json.dumps(document)}\n" for document in documents)
                Path(folder, f"{split}.jsonl").write_text(lines, encoding="utf-8")
            datamodule = HTCDataModule(
                name="random", path=folder, batch_size=options.batch_size, eval_batch_size=options.batch_size,
                cache_dir=folder,
            )  # fmt: skip
            optimizer = LinearAdamW(learning_rate=1e-4, new_rate_factor=1, weight_decay=0.01, warmup_ratio=0.0)
            built = build(datamodule, Pretrained(name=options.backbone), partial(PTMT, alpha=0.1, optimizer=optimizer))
            assert isinstance(built, PTMT)
            self.model, self.taxonomy = built, built.taxonomy
            self.batches, self.unlabelled = list(datamodule.train_dataloader()), list(datamodule.val_dataloader())
        self.adamw, _ = optimizer.build(self.model, 1000, fused=True, new=self.model.backbone.new_parameters())

    def step(self, index: int) -> None:
        """Make one training step: forward, backward, clipping and optimiser."""
        self.model.train()
        self.adamw.zero_grad()
        self.model.loss_terms(self.batches[index])["loss"].backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_NORM)
        self.adamw.step()

    def predict(self, index: int) -> None:
        """Predict the labels of one batch."""
        self.model.eval()
        with torch.inference_mode():
            self.model.predict_nodes(self.model.probabilities(self.model(self.unlabelled[index])))


Seconds = list[float]


def _side_by_side(
    one: Callable[[int], object], other: Callable[[int], object], options: argparse.Namespace
) -> tuple[Seconds, Seconds]:
    """Return the seconds that each takes for each batch."""
    seconds: dict[Callable[[int], object], Seconds] = {one: [], other: []}
    for index in range(options.batches + 1):
        for work in (one, other) if index % 2 else (other, one):
            started = time.perf_counter()
            work(index)
            seconds[work].append(time.perf_counter() - started)
    return seconds[one][1:], seconds[other][1:]  # the first is the warm-up


def _ratio(numerator: Seconds, denominator: Seconds) -> tuple[float, float]:
    """Return the ratio of the medians, and the interquartile range of the ratios of single batches."""
    ratios = [a / b for a, b in zip(numerator, denominator, strict=True)]
    lower, _, upper = statistics.quantiles(ratios, n=4)
    return statistics.median(numerator) / statistics.median(denominator), upper - lower


def _memory(size: int, options: argparse.Namespace) -> float:
    command = [sys.executable, __file__, "--backbone", options.backbone, "--only-memory-of", str(size)]
    command += ["--batch-size", str(options.batch_size), "--threads", str(options.threads), "--batches", "3"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def _peak(options: argparse.Namespace) -> int:
    setup = _Setup(options.only_memory_of, options)
    for index in range(3):
        setup.step(index)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _metrics(taxonomy: Taxonomy, options: argparse.Namespace) -> tuple[Seconds, Seconds]:
    """Return the seconds of the metrics and of a plain count of the same in numpy, for batches of 64 documents."""
    draw = np.random.default_rng(0)
    probabilities = draw.random((64, len(taxonomy)), dtype=np.float32) ** 8
    true = np.zeros(probabilities.shape, dtype=bool)
    for row in range(len(true)):
        true[row, taxonomy.path_to(int(draw.integers(len(taxonomy))))] = True
    predicted = taxonomy.prune(torch.from_numpy(probabilities > 0.5)).numpy()
    metrics = HierarchicalMetrics(taxonomy)
    tensors: tuple[Tensor, ...] = tuple(map(torch.from_numpy, (predicted, true, probabilities)))
    parents = np.array([above[0] if above else -1 for above in taxonomy.parents])
    return _side_by_side(
        lambda _: metrics.update(*tensors),
        lambda _: plain_counts(predicted, true, probabilities, parents, taxonomy.level_slices),
        options,
    )


def plain_counts(
    predicted: np.ndarray, true: np.ndarray, probabilities: np.ndarray, parents: np.ndarray, levels: tuple[slice, ...]
) -> list[np.ndarray]:
    """Count in a tree what the metrics count: labels, labels with their ancestors, and scores by their truth."""
    counts = []
    ancestors = [predicted.copy(), true.copy()]
    for labels in ancestors:
        for nodes in reversed(levels[1:]):
            rows, columns = labels[:, nodes].nonzero()
            labels[rows, parents[nodes][columns]] = True
    for found, wanted in ((predicted, true), ancestors):
        counts += [(found & wanted).sum(0), (found & ~wanted).sum(0), (~found & wanted).sum(0)]
    coherent = probabilities.copy()
    for nodes in levels[1:]:
        coherent[:, nodes] = np.minimum(coherent[:, nodes], coherent[:, parents[nodes]])
    bins = np.minimum((coherent * 1000).astype(np.int64), 999)
    return [*counts, np.bincount(bins[ancestors[1]], minlength=1000), np.bincount(bins[~ancestors[1]], minlength=1000)]


if __name__ == "__main__":
    main()
