"""The demo that ``make demo`` runs: trains PTMT on the built-in sample, beside a bag-of-words baseline.

Ends with status 1 if the model is not ahead by ``LEAD``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

from bag_of_words import bag_of_words  # noqa: E402

from ptmt_lightning.data.document import Document, read_documents  # noqa: E402
from ptmt_lightning.taxonomy import Taxonomy  # noqa: E402

SAMPLE = ROOT / "data/sample-v2"
LEAD = 0.10  # of test h_f1_macro
NUM_EXAMPLES = 2


def main() -> None:
    """Train and test both systems, and print their test metrics, texts that tell them apart, and the run's folder."""
    command = [sys.executable, "run.py", "experiment=demo", *sys.argv[1:]]
    print(" ".join(["python", *command[1:]]), flush=True)
    subprocess.run(command, cwd=ROOT, check=True)
    run_dir = max((ROOT / "outputs/sample/ptmt").iterdir())  # names begin with the time
    result = json.loads((run_dir / "result.json").read_text())
    started = time.perf_counter()
    baseline = bag_of_words(SAMPLE)
    seconds = time.perf_counter() - started

    table = Table(title="Test split of the built-in sample", title_justify="left")
    table.add_column("metric")
    table.add_column("ptmt", justify="right")
    table.add_column("bag of words", justify="right")
    for name in ("h_f1_macro", "h_f1_macro_harmonic", "h_f1_micro", "exact_match"):
        table.add_row(name, f"{result['test'][name]:.3f}", f"{baseline.scores['test'][name]:.3f}")
    table.add_row("training", f"{result['seconds']['fit']:.0f} s", f"{seconds:.0f} s")
    console = Console()
    console.print(table)
    console.print(f"bag of words: the best on validation, {baseline.settings}", highlight=False)
    _show_examples(console, run_dir, baseline.predicted)
    console.print(f"run: {run_dir.relative_to(ROOT)}", highlight=False)

    lead = result["test"]["h_f1_macro"] - baseline.scores["test"]["h_f1_macro"]
    if lead < LEAD:
        sys.exit(f"error: ptmt is ahead of the bag of words by {lead:.3f} h_f1_macro, expected {LEAD} or more")


def _show_examples(console: Console, run_dir: Path, predicted: Tensor) -> None:
    """Print the shortest test texts with two paths that PTMT alone gets right."""
    taxonomy = Taxonomy.from_tsv(SAMPLE / "taxonomy.tsv")
    documents = list(read_documents(SAMPLE / "test.jsonl", "test", taxonomy))
    records = [json.loads(line) for line in (run_dir / "predictions.jsonl").open(encoding="utf-8")]
    found = [
        (document, record, nodes)
        for document, record, row in zip(documents, records, predicted, strict=True)
        if len(record["labels"]) == 2
        and _is_right(record)
        and (nodes := tuple(torch.nonzero(row).flatten().tolist())) != document.nodes
    ]
    for document, record, nodes in sorted(found, key=_length)[:NUM_EXAMPLES]:
        console.print(Text(f'"{document.text}"'), style="bold")
        _show_paths(console, "ptmt", [label["path"] for label in record["predicted"]], "right")
        paths = [taxonomy.path_names(path) for path in taxonomy.label_paths(nodes)]
        _show_paths(console, "bag of words", paths, "wrong")


def _is_right(record: dict[str, Any]) -> bool:
    return sorted(record["labels"]) == sorted(label["path"] for label in record["predicted"])


def _length(example: tuple[Document, dict[str, Any], tuple[int, ...]]) -> int:
    return len(example[0].text)


def _show_paths(console: Console, system: str, paths: list[list[str]], verdict: str) -> None:
    shown = "; ".join(" > ".join(path) for path in paths) or "none"
    console.print(f"  {system}, {verdict}: {shown}", highlight=False)


if __name__ == "__main__":
    main()
