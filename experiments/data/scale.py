"""Memory and time that half a million reviews take from the raw files to batches, at a first and at a second start.

    python experiments/data/scale.py FOLDER --tokenizer NAME_OR_FOLDER

FOLDER is the folder of ``amazon``, as ``standins.py`` or the download leaves it. Each start is a process of its own,
which measures its own peak memory (resident, mapped files included). Data that an earlier measurement prepared is
deleted first.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ptmt_lightning.data.benchmarks.amazon import AmazonDataModule
from ptmt_lightning.utils.tokens import text_token_ids

MAX_TOKENS = 512
NUM_BATCHES = 500
NUM_TEXTS = 20_000  # tokenised to compare one thread with all threads


def main() -> None:
    """Measure both starts, and write ``results.csv``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", default="bert-base-uncased")
    parser.add_argument("--only", choices=(start.__name__, tokenise.__name__), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
        print(json.dumps(globals()[options.only](options.folder, tokenizer)))
        return
    for path in (*options.folder.glob("prepared-*"), options.folder / "cache"):
        shutil.rmtree(path, ignore_errors=True)
    first, second = (_in_process(start, options) for _ in range(2))
    one, every = (_in_process(tokenise, options, RAYON_NUM_THREADS=threads) for threads in ("1", str(os.cpu_count())))
    size = f"{first['documents']} documents"
    rows = [
        ("peak_memory_gib", f"{size}, first start: read, tokenise, {NUM_BATCHES} batches", first["gib"], "GiB"),
        ("peak_memory_gib", f"{size}, second start: {NUM_BATCHES} batches", second["gib"], "GiB"),
        ("own_memory_gib", f"{size}, second start, without mapped files", second["own_gib"], "GiB"),
        ("first_start_seconds", size, first["seconds"], "s"),
        ("second_start_seconds", size, second["seconds"], "s"),
        ("all_threads_over_one", f"tokenising {NUM_TEXTS} texts, {os.cpu_count()} cores", one / every, "ratio"),
    ]
    table = pd.DataFrame([(*row, "") for row in rows], columns=["measure", "setting", "value", "unit", "spread"])
    results = Path(__file__).with_name("results.csv")
    if results.exists():  # rows of other sizes are kept
        table = pd.concat([table, pd.read_csv(results)]).drop_duplicates(["measure", "setting"])
    table.to_csv(results, index=False, float_format="%.3f")
    print(table.to_string())


def _in_process(task: Callable[..., Any], options: argparse.Namespace, **environment: str) -> Any:
    command = [sys.executable, __file__, str(options.folder), "--tokenizer", options.tokenizer, "--only", task.__name__]
    done = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _data(folder: Path) -> AmazonDataModule:
    return AmazonDataModule(name="amazon", path=str(folder), batch_size=32, cache_dir=str(folder / "cache"))


def start(folder: Path, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
    """Measure the way from the data module to the first training batch, without imports, and some batches more.

    Args:
        folder: folder of the data set.
        tokenizer: tokenizer of the texts.

    Returns:
        ``seconds`` to the first batch; ``gib``, the peak memory with mapped files; ``own_gib``, the memory at the end
        without mapped files; and the number of ``documents``.
    """
    began = time.perf_counter()
    data = _data(folder)
    data.prepare_data()
    data.connect(tokenizer=tokenizer, max_tokens=MAX_TOKENS, train_collator=list, eval_collator=list)
    batches = iter(data.train_dataloader())
    next(batches)
    seconds = time.perf_counter() - began
    for _ in itertools.islice(batches, NUM_BATCHES):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    own = int(next(line for line in status if line.startswith("RssAnon")).split()[1]) / 2**20
    return {"seconds": seconds, "gib": peak, "own_gib": own, "documents": sum(data.split_sizes().values())}


def tokenise(folder: Path, tokenizer: PreTrainedTokenizerBase) -> float:
    """Return the seconds that it takes to tokenise some texts, in pieces as large as those of the cache.

    Args:
        folder: folder of the data set.
        tokenizer: tokenizer of the texts.
    """
    data = _data(folder)
    data.prepare_data()
    texts = list(itertools.islice(data.texts("train"), NUM_TEXTS))
    began = time.perf_counter()
    for first in range(0, len(texts), 1000):
        text_token_ids(tokenizer, texts[first : first + 1000], MAX_TOKENS)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
