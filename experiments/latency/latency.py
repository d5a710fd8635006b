"""Measures the milliseconds that every system takes for a document, beside the bare encoder, by turns in one process.

    python experiments/latency/latency.py [--data FOLDER] [--lengths 128 512 data] [--batch-sizes 1 32] ...

Weights are random and taxonomies are made up with the given numbers of nodes a level, as only shapes matter for time.
All systems read the same texts; a system that adds tokens of its own reads so many more, up to 512. HBGL decodes all of
its steps, as for a document with labels on every level. ``--lengths data`` takes the texts' lengths from a data folder.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.fabric.utilities import move_data_to_device
from tqdm import tqdm

from ptmt_lightning.backbones import FromScratch
from ptmt_lightning.data.document import Example
from ptmt_lightning.losses import MeanBCE
from ptmt_lightning.models.base import HTCModel
from ptmt_lightning.models.bert import BERTClassifier
from ptmt_lightning.models.bert_ml import BERTML
from ptmt_lightning.models.gacaps import GACaps
from ptmt_lightning.models.hbgl import HBGL
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.taxonomy.edges import ROOT

MAX_LENGTH = 512
SHAPES = {"12x768": (12, 768, 12), "6x384": (6, 384, 12)}
TAXONOMIES = {"17/85": (17, 85), "7/46/77/16": (7, 46, 77, 16)}
WORDS = [f"word{index}" for index in range(500)]
SYSTEMS: dict[str, Callable[..., HTCModel]] = {
    "ptmt": PTMT,
    "bert": BERTClassifier,
    "bert_ml": BERTML,
    "hbgl": partial(HBGL, pretraining_steps=0),
    "gacaps": GACaps,
}


def main() -> None:
    """Measure the systems, and write ``results.csv``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=["12x768"], choices=SHAPES)
    parser.add_argument("--taxonomies", nargs="+", default=list(TAXONOMIES), choices=TAXONOMIES)
    parser.add_argument("--lengths", nargs="+", default=["128", "512"], help="tokens of [CLS] text [SEP], or 'data'")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[1])
    parser.add_argument("--data", type=Path, help="folder whose test.jsonl.gz gives the lengths for 'data'")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results.csv"))
    parser.add_argument("--memory-of", choices=("encoder", *SYSTEMS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if "data" in options.lengths and options.data is None:
        parser.error("--lengths data needs --data FOLDER")
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(json.dumps(_memory(options)))
        return
    place = f"threads={options.threads}" if options.device == "cpu" else options.device
    rows = []
    for shape in options.shapes:
        for taxonomy in options.taxonomies:
            models = {name: build(name, shape, taxonomy).to(options.device) for name in SYSTEMS}
            rows += _sizes(models, shape, taxonomy, options)
            for batch_size in options.batch_sizes:
                for length in options.lengths:
                    setting = f"{place} shape={shape} length={length} taxonomy={taxonomy} batch={batch_size}"
                    rows += _latencies(models, setting, length, batch_size, options)
            del models
    table = pd.DataFrame(rows, columns=["measure", "setting", "value", "unit", "spread"])
    if options.out.exists():  # rows of other settings are kept
        table = pd.concat([table, pd.read_csv(options.out)]).drop_duplicates(["measure", "setting"])
    table.sort_values(["measure", "setting"]).to_csv(options.out, index=False, float_format="%.4g")
    print(table[table["measure"] == "latency_over_encoder"].to_string())


def build(system: str, shape: str, taxonomy: str) -> HTCModel:
    """Return a system with random weights, in evaluation mode.

    Args:
        system: a key of ``SYSTEMS``.
        shape: a key of ``SHAPES``.
        taxonomy: a key of ``TAXONOMIES``.
    """
    layers, width, heads = SHAPES[shape]
    torch.manual_seed(0)
    source = FromScratch(
        name=shape, hidden_size=width, num_layers=layers, num_heads=heads, intermediate_size=4 * width,
        vocabulary_size=len(WORDS), max_length=MAX_LENGTH,
    )  # fmt: skip
    backbone, tokenizer, max_length = source.load(WORDS)
    model = SYSTEMS[system](
        taxonomy=made_up(TAXONOMIES[taxonomy]), backbone=backbone, tokenizer=tokenizer, max_length=max_length,
        label_loss=MeanBCE(), optimizer=LinearAdamW(learning_rate=0),
    )  # fmt: skip
    if isinstance(model, HBGL):
        with torch.no_grad():  # keeps the decoder from predicting the end before the last step
            model.backbone.token_embeddings[tokenizer.sep_token_id] = 0
    return model.eval()


def made_up(level_sizes: tuple[int, ...]) -> Taxonomy:
    """Return a tree with the given number of nodes on each level."""
    levels = [[f"level{level}node{node}" for node in range(size)] for level, size in enumerate(level_sizes)]
    edges = [(ROOT, name) for name in levels[0]]
    for above, below in itertools.pairwise(levels):
        edges += [(above[index % len(above)], name) for index, name in enumerate(below)]
    return Taxonomy(edges)


def _examples(length: str, batch_size: int, rounds: int, options: argparse.Namespace) -> list[list[Example]]:
    """Return one batch for each round; the documents of a batch have similar lengths, as the data module sorts them."""
    rng = np.random.default_rng(0)
    if length == "data":
        with gzip.open(options.data / "test.jsonl.gz", "rt") as file:
            lengths = np.array([len(json.loads(line)["text"].split()) * 4 // 3 for line in file])  # word pieces
        start = rng.integers(0, len(lengths) - batch_size, rounds)
        lengths = np.sort(lengths.clip(1, MAX_LENGTH - 2))
        drawn = [lengths[s : s + batch_size] for s in start]
    else:
        drawn = [np.full(batch_size, int(length) - 2)] * rounds
    nothing = np.array([], dtype=np.int32)
    return [
        [Example(row, 0, rng.integers(5, 400, size, dtype=np.int32), nothing) for row, size in enumerate(sizes)]
        for sizes in drawn
    ]


def _runners(
    models: dict[str, HTCModel], batches: list[list[Example]], device: str
) -> dict[str, list[Callable[[], Any]]]:
    """Return for each system and the encoder one call for each batch, which is made beforehand.

    The call of a system includes its decision, with pruning.
    """

    def predict(model: HTCModel, batch: Any) -> Any:
        return model.predict_nodes(model.probabilities(model(batch)))

    runners: dict[str, list[Callable[[], Any]]] = {}
    for name, model in models.items():
        collate = model.collator(training=False)
        moved = [move_data_to_device(collate(batch), device) for batch in batches]
        runners[name] = [partial(predict, model, batch) for batch in moved]
        if name == "bert":
            encoder = model.backbone.model.bert
            runners["encoder"] = [
                partial(encoder, input_ids=batch.input_ids, attention_mask=batch.attention_mask) for batch in moved
            ]
    return runners


def _latencies(
    models: dict[str, HTCModel], setting: str, length: str, batch_size: int, options: argparse.Namespace
) -> list[tuple[str, str, float, str, float]]:
    runners = _runners(models, _examples(length, batch_size, options.rounds + 1, options), options.device)
    names = list(runners)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with torch.inference_mode():
        for turn in tqdm(range(options.rounds + 1), desc=setting):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                started = _now(options.device)
                runners[name][turn]()
                if turn:  # the first turn warms up
                    seconds[name].append(_now(options.device) - started)
    rows = []
    for name in names:
        own, bare = np.array(seconds[name]), np.array(seconds["encoder"])
        low, middle, high = np.quantile(own * 1000 / batch_size, (0.25, 0.5, 0.75))
        rows.append(("milliseconds_per_document", f"{name} {setting}", middle, "ms", high - low))
        rows.append(("documents_per_second", f"{name} {setting}", 1000 / middle, "1/s", 1000 / low - 1000 / high))
        if name != "encoder":
            low, middle, high = np.quantile(own / bare, (0.25, 0.5, 0.75))
            rows.append(("latency_over_encoder", f"{name} {setting}", middle, "ratio", high - low))
    return rows


def _sizes(
    models: dict[str, HTCModel], shape: str, taxonomy: str, options: argparse.Namespace
) -> list[tuple[str, str, float, str, float | str]]:
    encoder = models["bert"].backbone.model.bert
    modules: dict[str, torch.nn.Module] = {"encoder": encoder, **models}
    rows: list[tuple[str, str, float, str, float | str]] = []
    for name, module in modules.items():
        count = sum(parameter.numel() for parameter in module.parameters())
        rows.append(("parameters", f"{name} shape={shape} taxonomy={taxonomy}", count / 1e6, "million", ""))
    if options.device == "cpu":
        for name in modules:
            command = [
                sys.executable, __file__, "--memory-of", name, "--shapes", shape, "--taxonomies", taxonomy,
                "--threads", str(options.threads),
            ]  # fmt: skip
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            mib = json.loads(done.stdout.splitlines()[-1])
            rows.append(("peak_memory", f"{name} shape={shape} taxonomy={taxonomy} length=512 batch=1", mib, "MiB", ""))
    return rows


def _memory(options: argparse.Namespace) -> float:
    """Return the MiB by which one system and one document of 512 tokens raise the peak memory of this process."""
    before = _peak_kib()
    name = options.memory_of
    model = build("bert" if name == "encoder" else name, options.shapes[0], options.taxonomies[0])
    runners = _runners({"bert" if name == "encoder" else name: model}, _examples("512", 1, 1, options), "cpu")
    with torch.inference_mode():
        runners[name][0]()
    return (_peak_kib() - before) / 1024


def _peak_kib() -> int:
    """Return the peak memory of this process in KiB; ``getrusage`` would include that of its parent before the fork."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0])


def _now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
