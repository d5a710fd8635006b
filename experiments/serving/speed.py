"""Measures throughput and latency of a trained model, in PyTorch and exported, beside its bare encoder in eager mode.

All read the same texts; tokenising counts. The encoder takes the texts in their order, 32 at a time, cut to the model's
length and padded to the longest. The systems take turns, so that other load on the machine affects all alike.

    python experiments/serving/speed.py RUN/model DATA/newsgroups
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from model_and_data import parser_for, test_documents

sys.path.insert(0, str(Path(__file__).parents[1]))

from bare_encoder import bare_encoder

from ptmt_lightning.inference import Classifier
from ptmt_lightning.inference.export import export_model
from ptmt_lightning.metrics import count, macro

BATCH = 32


def main() -> None:
    """Measure speed and quality, and write ``results.csv``."""
    parser = parser_for(__doc__)
    parser.add_argument("--timed", type=int, default=256, help="documents of the timings (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    documents = test_documents(options.data)
    texts = [document["text"] for document in documents]
    with tempfile.TemporaryDirectory() as folder:
        classifiers = {"pytorch": Classifier.from_pretrained(options.model, device="cpu")}
        for name, int8 in (("onnx", False), ("onnx_int8", True)):
            export_model(str(options.model), Path(folder) / name, int8=int8)
            classifiers[name] = Classifier.from_pretrained(Path(folder) / name)
        rows = _timings(options, classifiers, texts[: options.timed])
        for name, classifier in classifiers.items():
            rows[name]["h_f1_macro"] = _h_f1_macro(classifier, documents, texts)
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("what")
    table["throughput_over_eager"] = table["documents_per_second"] / rows["eager"]["documents_per_second"]
    table["h_f1_macro_difference"] = table["h_f1_macro"] - rows["pytorch"]["h_f1_macro"]
    sha = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    table = table.assign(
        data=options.data.name, documents=len(texts), timed=options.timed, rounds=options.rounds,
        max_length=classifiers["pytorch"].folder.system.max_length, device=f"cpu, threads={options.threads}",
        git_sha=sha.stdout.strip(),
    )  # fmt: skip
    table.round(4).to_csv(Path(__file__).with_name("results.csv"))
    print(table.round(4).to_string())


def _timings(
    options: argparse.Namespace, classifiers: dict[str, Classifier], texts: list[str]
) -> dict[str, dict[str, float]]:
    """Return the times of each system, medians over rounds; a first round, to warm up, does not count."""
    eager = bare_encoder(options.model, classifiers["pytorch"].folder.system.max_length)

    def predict(classifier: Classifier) -> Callable[[list[str], int], object]:
        return lambda texts, size: list(classifier.predict(iter(texts), batch_size=size))

    systems: dict[str, Callable[[list[str], int], object]] = {"eager": eager} | {
        name: predict(classifier) for name, classifier in classifiers.items()
    }
    seconds: dict[tuple[str, int], list[float]] = {}
    for turn in range(options.rounds + 1):
        for name, run in systems.items():
            for size, chosen in ((BATCH, texts), (1, texts[:32])):
                began = time.perf_counter()
                run(chosen, size)
                if turn:
                    seconds.setdefault((name, size), []).append((time.perf_counter() - began) / len(chosen))
    rows = {}
    for name in systems:
        lone, crowd = seconds[name, 1], seconds[name, BATCH]
        rows[name] = {
            "documents_per_second": 1 / statistics.median(crowd),
            "milliseconds_alone": 1000 * statistics.median(lone),
            "spread": (max(crowd) - min(crowd)) / statistics.median(crowd),
        }
    return rows


def _h_f1_macro(classifier: Classifier, documents: list[dict[str, list[list[str]]]], texts: list[str]) -> float:
    """Return macro hF1 over all documents, computed as in the test of a run."""
    taxonomy = classifier.taxonomy
    predicted, targets = torch.zeros(2, len(texts), len(taxonomy), dtype=torch.bool)
    for row, (paths, document) in enumerate(zip(classifier.predict(texts), documents, strict=True)):
        for path in paths:
            predicted[row, taxonomy.path_nodes(path.labels)] = True
        targets[row, taxonomy.encode(document["labels"])] = True
    return macro(count(taxonomy.augment(predicted), taxonomy.augment(targets))).f1.item()


if __name__ == "__main__":
    main()
