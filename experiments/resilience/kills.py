"""Kills training, caching, prediction, export and a search at random moments, and compares how they end.

    python experiments/resilience/kills.py [--kills train=40,cache=20,predict=15,export=10,search=15] [--seed 0]

Prediction and export use the model of the training, so that ``train=0`` stands before them where they are done alone.

Each piece of work is done once undisturbed. Then it is started again and again, killed by SIGKILL at a moment drawn
from 0 to a bit more than the undisturbed time, and given the same command again (a run with a checkpoint:
``resume=RUN``), until one start survives; then the next round begins in an empty folder, until the number of kills is
reached. Each round's results must be those of the undisturbed one, and nothing else may be left behind.

Work is done in forks of this process, which has imported everything, but the search, whose trials are processes that
start from the command line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import optuna
import pandas as pd
import torch

from ptmt_lightning import cli
from ptmt_lightning.backbones import word_tokenizer
from ptmt_lightning.data.cache import tokenized
from ptmt_lightning.data.document import read_documents
from ptmt_lightning.data.sample import write_sample
from ptmt_lightning.inference import Classifier, export
from ptmt_lightning.launch import app, task
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.taxonomy import Taxonomy

HERE = Path(__file__).parent
RUN = HERE.parents[1] / "run.py"
IMPORTED = (Classifier, export, task)  # which commands import late, else in each fork anew
TRAIN = [
    "experiment=demo", "trainer.max_epochs=3", "trainer.val_check_interval=0.5", "impl.num_workers=1",
    "dataset.train_fraction=0.1", "trainer.limit_val_batches=5", "trainer.limit_test_batches=5",
    "callbacks.progress_bar=null", "callbacks.early_stopping=null",
    "callbacks.last_checkpoint.every_minutes=0.01", "+callbacks.last_checkpoint.check_every=1",
]  # fmt: skip
SEARCH = [
    "-m", "hydra/sweeper=optuna", "experiment=demo", "trainer.max_epochs=1", "trainer.limit_train_batches=60",
    "callbacks.progress_bar=null", "callbacks.early_stopping=null", "optimizer.learning_rate=interval(1e-4,1e-2)",
    "hydra.sweeper.n_trials=4", "hydra.sweeper.study=kills", "hydra.sweeper.n_jobs=1",
    "callbacks.last_checkpoint.every_minutes=0.01", "+callbacks.last_checkpoint.check_every=1",
]  # fmt: skip


@dataclass
class Work:
    """A piece of work.

    Args:
        kills: number of kills.
        start: starts it in a folder, or goes on there; returns the process's number.
        outcome: what it leaves, to be equal to what the undisturbed one leaves, but for rounding where it is a float.
    """

    kills: int
    start: Callable[[Path], int]
    outcome: Callable[[Path], dict[str, Any]]


def main() -> None:
    """Do all work, and write a log of each, and ``results.csv``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", default="train=40,cache=20,predict=15,export=10,search=15")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--outputs", type=Path, default=Path("outputs/resilience"))
    options = parser.parse_args()
    outputs = options.outputs.absolute()
    shutil.rmtree(outputs, ignore_errors=True)
    outputs.mkdir(parents=True)
    write_sample(outputs / "sample")
    torch.set_num_threads(1)
    numbers = {name: int(count) for name, count in (part.split("=") for part in options.kills.split(","))}
    starts = {
        "train": (_start_training, _outcome_of_training), "cache": (_start_caching, _files),
        "predict": (_start_prediction, _files), "export": (_start_export, _outcome_of_export),
        "search": (_start_search, _outcome_of_search),
    }  # fmt: skip
    table = HERE / "results.csv"
    for name, count in numbers.items():
        with (HERE / f"{name}.log").open("w", encoding="utf-8") as log:
            row = _repeat(outputs, name, Work(count, *starts[name]), random.Random(options.seed), log)
        others = [other for other in _rows(table) if other["work"] != name]
        pd.DataFrame([*others, {"work": name, **row}]).to_csv(table, index=False)
    print(table.read_text(encoding="utf-8"))


def _rows(table: Path) -> list[dict[str, Any]]:
    return pd.read_csv(table).to_dict("records") if table.exists() else []  # type: ignore[return-value]


def _repeat(outputs: Path, name: str, work: Work, moments: random.Random, log: Any) -> dict[str, Any]:
    """Do a piece of work undisturbed, then with kills; return the row of the table."""
    whole, killed = outputs / name / "whole", outputs / name / "killed"
    whole.mkdir(parents=True)
    began = time.monotonic()
    _check(_ended(work.start(whole), None), name)
    seconds = time.monotonic() - began
    expected = work.outcome(whole)
    if name == "train":  # what prediction and export use
        shutil.copytree(RunFolder(whole / "run").model, outputs / "model")
    kills = rounds = different = left = 0
    while kills < work.kills:
        shutil.rmtree(killed, ignore_errors=True)
        killed.mkdir()
        rounds += 1
        while True:
            process = work.start(killed)
            limit = moments.uniform(0, 1.1 * seconds) if kills < work.kills else None
            code = _ended(process, limit)
            if code is not None:
                _check(code, name)
                break
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            kills += 1
            print(f"{name}, round {rounds}, kill {kills}: after {limit:.2f} s of {seconds:.2f}", file=log, flush=True)
        found = work.outcome(killed)
        wrong = [key for key in expected.keys() | found.keys() if not _equal(expected.get(key), found.get(key))]
        print(f"{name}, round {rounds}: {', '.join(sorted(wrong)) or 'as undisturbed'}", file=log, flush=True)
        different += bool(wrong)
        left += _num_alive(killed)
    return {
        "kills": kills, "rounds": rounds, "undisturbed_seconds": round(seconds, 2), "different_rounds": different,
        "processes_left_behind": left,
    }  # fmt: skip


def _check(code: int | None, name: str) -> None:
    if code:
        sys.exit(f"error: {name} ended with {code}")


def _ended(process: int, limit: float | None) -> int | None:
    """Wait for a process up to so many seconds; return its exit code, or None while it runs."""
    until = None if limit is None else time.monotonic() + limit
    while until is None or time.monotonic() < until:
        number, status = os.waitpid(process, os.WNOHANG)
        if number:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


def _equal(one: Any, two: Any) -> bool:
    if isinstance(one, float) and isinstance(two, float):
        return abs(one - two) < 1e-6
    return bool(one == two)


def _num_alive(folder: Path) -> int:
    """Return the number of processes that name a folder, after at most 10 seconds in which they may end."""
    until = time.monotonic() + 10
    while True:
        count = 0
        for process in Path("/proc").iterdir():
            with suppress(OSError):
                count += process.name.isdigit() and str(folder).encode() in (process / "cmdline").read_bytes()
        if not count or time.monotonic() > until:
            return count
        time.sleep(0.1)


def _fork(folder: Path, work: Callable[[], object]) -> int:
    """Do work in a fork of this process, in a folder; return the fork's number."""
    process = os.fork()
    if not process:
        _be_child(folder, work)
    return process


def _be_child(folder: Path, work: Callable[[], object]) -> NoReturn:
    code = 1
    try:
        os.chdir(folder)
        output = os.open(folder.with_suffix(".out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        work()
        code = 0
    except SystemExit as stop:
        print(stop, flush=True)
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _files(folder: Path) -> dict[str, Any]:
    """Return a digest of each file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ---- training ----


def _start_training(folder: Path) -> int:
    run = folder / "run"
    arguments = [
        *TRAIN,
        f"hydra.run.dir={run}",
        f"cache_dir={folder}/cache",
        f"dataset.path={folder.parents[1]}/sample",
    ]
    arguments = [f"resume={run}"] if RunFolder(run).has_checkpoint else arguments

    def work() -> None:
        # A kill may come when all is written, after which the checkpoints go.
        if RunFolder(run).is_finished and not RunFolder(run).has_checkpoint:
            return
        sys.argv = [str(RUN), *arguments]
        app.main()

    return _fork(folder, work)


def _outcome_of_training(folder: Path) -> dict[str, Any]:
    run = RunFolder(folder / "run")
    result = json.loads(run.result.read_text())
    found = {f"{split} {name}": value for split in ("val", "test") for name, value in result[split].items()}
    same = ("steps", "epochs", "best_checkpoint", "best_score", "thresholds", "num_documents", "dataset_fingerprint")
    found |= {key: result[key] for key in same}
    curves = pd.read_csv(run.metrics)
    kept = [name for name in curves if not str(name).endswith(("_per_second", "memory_gib"))]
    found["curves"] = curves[kept].round(5).to_csv()
    # Whether previous.ckpt is there depends on the time that the run took.
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")} - {"run/checkpoints/previous.ckpt"}
    classifier = Classifier.from_pretrained(run.model)
    return found | {"files": sorted(names), "model": np.round(classifier.probabilities(["a b c"]).numpy(), 5).tolist()}


# ---- the cache of tokenised documents ----


def _start_caching(folder: Path) -> int:
    sample = folder.parents[1] / "sample"

    def work() -> None:
        taxonomy = Taxonomy.from_tsv(sample / "taxonomy.tsv")
        raw = sample / "train.jsonl"
        texts = [json.loads(line)["text"] for line in raw.open()]
        documents = list(read_documents(raw, "train", taxonomy)) * 8
        tokenizer = word_tokenizer(texts, 5000)
        tokenized(raw, documents, taxonomy=taxonomy, tokenizer=tokenizer, max_tokens=512, cache_dir=folder / "cache")

    return _fork(folder, work)


# ---- prediction and export ----


def _start_prediction(folder: Path) -> int:
    texts = folder.parents[1] / "sample/test.jsonl"
    model = folder.parents[1] / "model"
    arguments = ["predict", str(model), str(texts), "-o", str(folder / "out.jsonl"), "--batch-size", "4"]
    return _fork(folder, lambda: _unless(folder / "out.jsonl", arguments))


def _start_export(folder: Path) -> int:
    arguments = ["export", str(folder.parents[1] / "model"), "-o", str(folder / "exported")]
    return _fork(folder, lambda: _unless(folder / "exported", arguments))


def _unless(output: Path, arguments: list[str]) -> None:
    """Run ``ptmt`` unless its output is there: a kill may come when it is whole, which ``ptmt`` refuses to replace."""
    if not output.exists():
        cli.main(arguments)


def _outcome_of_export(folder: Path) -> dict[str, Any]:
    probabilities = Classifier.from_pretrained(folder / "exported").probabilities(["a b c", "d"])
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    return {"files": names, "probabilities": np.round(probabilities.numpy(), 5).tolist()}


# ---- a search ----


def _start_search(folder: Path) -> int:
    arguments = [
        *SEARCH, f"hydra.sweeper.folder={folder}/study", f"cache_dir={folder.parents[0]}/cache",
        f"dataset.path={folder.parents[1]}/sample",
    ]  # fmt: skip
    with folder.with_suffix(".out").open("ab") as output:
        return subprocess.Popen([sys.executable, str(RUN), *arguments], cwd=folder, stdout=output, stderr=output).pid


def _outcome_of_search(folder: Path) -> dict[str, Any]:
    [storage] = folder.rglob("*.db")
    study = optuna.load_study(study_name="kills", storage=f"sqlite:///{storage}")
    trials = [(trial.number, trial.state.name, trial.params, trial.values) for trial in study.trials]
    done = [trial for trial in trials if trial[1] == "COMPLETE"]
    return {"trials": done, "results": len(list(folder.rglob("result.json")))}


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"{(time.monotonic() - started) / 60:.1f} minutes")
