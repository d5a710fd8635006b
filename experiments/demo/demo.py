"""The demo that ``make demo`` runs: trains PTMT on the built-in sample, beside a bag-of-words baseline.

    python experiments/demo/demo.py [seed=1 ...]

Ends with status 1 if the model is not ahead by ``LEAD``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

from bag_of_words import Baseline, bag_of_words  # noqa: E402

from ptmt_lightning.data.document import read_documents  # noqa: E402
from ptmt_lightning.taxonomy import Taxonomy  # noqa: E402

SAMPLE = ROOT / "data/sample-v2"
LEAD = 0.10  # of test h_f1_macro

Paths = list[list[str]]


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
    _show_examples(console, run_dir, baseline)
    console.print(f"bag of words, the best on validation: {baseline.settings}", highlight=False, soft_wrap=True)
    console.print(f"run: {run_dir.relative_to(ROOT)}", highlight=False, soft_wrap=True)

    lead = result["test"]["h_f1_macro"] - baseline.scores["test"]["h_f1_macro"]
    if lead < LEAD:
        sys.exit(f"error: ptmt is ahead of the bag of words by {lead:.3f} h_f1_macro, expected {LEAD} or more")


def _show_examples(console: Console, run_dir: Path, baseline: Baseline) -> None:
    """Print the shortest test texts on two devices, one with one path and one with two, that PTMT alone gets right."""
    taxonomy = Taxonomy.from_tsv(SAMPLE / "taxonomy.tsv")
    documents = list(read_documents(SAMPLE / "test.jsonl", "test", taxonomy))
    records = [json.loads(line) for line in (run_dir / "predictions.jsonl").open(encoding="utf-8")]
    devices = [taxonomy.labels[top].lower() for top in taxonomy.tops]
    for num_paths in (1, 2):
        found: list[tuple[str, Paths, Paths]] = []
        for document, record, row in zip(documents, records, baseline.predicted, strict=True):
            nodes = row.nonzero().flatten().tolist()
            is_on_two_devices = sum(device in document.text for device in devices) == 2
            is_right_alone = _is_right(record) and tuple(nodes) != document.nodes
            if len(record["labels"]) == num_paths and is_on_two_devices and is_right_alone:
                others = [taxonomy.path_names(path) for path in taxonomy.label_paths(nodes)]
                found.append((document.text, record["labels"], others))
        if found:
            _show(console, *min(found, key=lambda example: len(example[0])))


def _is_right(record: dict[str, Any]) -> bool:
    return sorted(record["labels"]) == sorted(predicted["path"] for predicted in record["predicted"])


def _show(console: Console, text: str, right: Paths, wrong: Paths) -> None:
    table = Table.grid(padding=(0, 2))
    for verdict, paths in (("ptmt (right)", right), ("bag of words (wrong)", wrong)):
        table.add_row(f"  {verdict}", "\n".join(" > ".join(path) for path in paths) or "no label")
    console.print(f'"{text}"', highlight=False, style="bold", soft_wrap=True)
    console.print(table)


if __name__ == "__main__":
    main()
