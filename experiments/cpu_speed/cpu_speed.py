"""Measures a trained model in each form for CPUs, beside its bare encoder in eager mode, side by side in one process.

All read the same texts; tokenising counts. The encoder takes the texts in their order, 32 at a time, cut to the model's
length and padded to the longest. The forms take turns, so that other load on the machine affects all alike.

    python experiments/cpu_speed/cpu_speed.py RUN/model DATA/newsgroups
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parents[1]))

from bare_encoder import bare_encoder

from ptmt_lightning.inference import Classifier
from ptmt_lightning.inference.engines import computes_bfloat16
from ptmt_lightning.inference.export import Form, open_to_export, traced, write_exported
from ptmt_lightning.metrics import count, macro

BATCH = 32
FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8")
Run = Callable[[Sequence[str]], object]


def main() -> None:
    """Measure speed, memory and quality, and write ``results.csv``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model/ folder of a run")
    parser.add_argument("data", type=Path, nargs="?", help="folder with train, val and test .jsonl.gz")
    parser.add_argument("--timed", type=int, default=256, help="documents of the timings (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="of the timings (default: %(default)s)")
    parser.add_argument("--alone", type=int, default=200, help="documents timed one by one (default: %(default)s)")
    parser.add_argument("--scored", type=int, help="documents of each split that are scored (default: all)")
    parser.add_argument("--calibrated", type=int, default=300, help="training documents that fit 8-bit numbers")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory:
        Classifier.from_pretrained(options.model, device="cpu").predict(sys.stdin.read().split("\n"))
        print(_peak_mib())
        return
    logging.set_verbosity_error()
    train, val, test = (_documents(options.data / f"{split}.jsonl.gz") for split in ("train", "val", "test"))
    with tempfile.TemporaryDirectory() as folder:
        folders = _exported(options.model, Path(folder), _texts(train[:: len(train) // options.calibrated]))
        classifiers = {name: Classifier.from_pretrained(path, device="cpu") for name, path in folders.items()}
        texts = _texts(test[:: max(1, len(test) // options.timed)][: options.timed])
        rows = _timings(options, classifiers, texts)
        for split, documents in (("val", val), ("test", test)):
            step = max(1, len(documents) // (options.scored or len(documents)))  # a file may be sorted by label
            _score(rows, classifiers, documents[::step][: options.scored], split)
        for name, path in folders.items():
            command = [sys.executable, __file__, str(path), "--memory", "--threads", str(options.threads)]
            lines = "\n".join(" ".join(text.split()) for text in texts[:BATCH])
            done = subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, check=True)
            rows[name]["peak_mib"] = float(done.stdout)
            rows[name]["folder_mib"] = sum(file.stat().st_size for file in path.iterdir()) / 2**20
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("form").round(4)
    sha = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    table.assign(
        data=options.data.name, timed=len(texts), rounds=options.rounds, alone=options.alone,
        scored=options.scored or "all", max_length=classifiers["pytorch"].folder.system.max_length,
        cpu=_cpu(), threads=options.threads, git_sha=sha.stdout.strip(),
    ).to_csv(Path(__file__).with_name("results.csv"))  # fmt: skip
    print(table.to_string())


def _documents(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _texts(documents: Sequence[dict[str, Any]]) -> list[str]:
    return [document["text"] for document in documents]


def _exported(model: Path, folder: Path, texts: Sequence[str]) -> dict[str, Path]:
    """Export the model in all forms; return the folder of each, the trained model first."""
    classifier = open_to_export(str(model), folder / "new")
    program = traced(classifier)
    forms = [Form("onnx"), Form("onnx", int8=True), Form("openvino"), Form("openvino", int8=True)]
    if computes_bfloat16():
        forms += [Form("openvino", bfloat16=True), Form("openvino", int8=True, bfloat16=True)]
    folders = {"pytorch": model}
    for form in tqdm(forms, desc="exports"):
        folders[form.name] = folder / form.name
        folders[form.name].mkdir()
        write_exported(classifier, program, folders[form.name], form, texts if form.fits_texts else ())
    return folders


def _timings(
    options: argparse.Namespace, classifiers: dict[str, Classifier], texts: list[str]
) -> dict[str, dict[str, float]]:
    """Return the times of each form, medians over rounds; a first round, to warm up, does not count."""
    eager = bare_encoder(options.model, classifiers["pytorch"].folder.system.max_length)

    systems: dict[str, Run] = {"eager": lambda texts: eager(texts, BATCH)} | {
        name: one.predict for name, one in classifiers.items()
    }
    crowd: dict[str, list[float]] = {name: [] for name in systems}
    alone: dict[str, list[float]] = {name: [] for name in systems}
    for turn in tqdm(range(options.rounds + 1), desc="rounds"):
        for name, run in systems.items():
            seconds = _seconds(run, texts)
            if turn:
                crowd[name].append(seconds)
    for text in tqdm(texts[: options.alone], desc="one by one"):
        for name, run in systems.items():
            alone[name].append(1000 * _seconds(run, [text]))
    rows = {}
    for name in systems:
        ratios = [eager / own for eager, own in zip(crowd["eager"], crowd[name], strict=True)]
        low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
        rows[name] = {
            "documents_per_second": len(texts) / statistics.median(crowd[name]),
            "throughput_over_eager": middle,
            "spread": high - low,
            "p50_ms": statistics.median(alone[name]),
            "p99_ms": float(np.quantile(alone[name], 0.99)),
        }
    return rows


def _seconds(run: Run, texts: Sequence[str]) -> float:
    began = time.perf_counter()
    run(texts)
    return time.perf_counter() - began


def _score(
    rows: dict[str, dict[str, float]], classifiers: dict[str, Classifier], documents: list[dict[str, Any]], split: str
) -> None:
    """Add macro hF1 of each form, computed as in the test of a run, and the share of texts with PyTorch's labels."""
    taxonomy = classifiers["pytorch"].taxonomy
    targets = torch.zeros(len(documents), len(taxonomy), dtype=torch.bool)
    for row, document in enumerate(documents):
        targets[row, taxonomy.encode(document["labels"])] = True
    expected: torch.Tensor | None = None
    for name, classifier in classifiers.items():
        predicted = classifier.rule.predict(classifier.probabilities(_texts(documents)))
        expected = predicted if expected is None else expected
        score = macro(count(taxonomy.augment(predicted), taxonomy.augment(targets))).f1.item()
        rows[name][f"{split}_h_f1_macro"] = score
        rows[name][f"{split}_difference"] = score - rows["pytorch"][f"{split}_h_f1_macro"]
        rows[name][f"{split}_same_labels"] = (predicted == expected).all(dim=1).float().mean().item()


def _cpu() -> str:
    """Return the name of the CPU, and which of the instructions it has that matter here."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = found.get("flags", "").split()
    return " ".join([found.get("model name", "unknown"), *(flag for flag in FLAGS if flag in flags)])


def _peak_mib() -> float:
    """Return the peak memory of this process; ``getrusage`` would include that of its parent before the fork."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
