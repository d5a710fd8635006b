"""The demo that ``make demo`` runs: trains PTMT on the built-in sample, beside a bag-of-words baseline."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "experiments"))

from bag_of_words import bag_of_words  # noqa: E402


def main() -> None:
    """Train and test both systems, and print their test metrics and the folder of the run."""
    command = [sys.executable, "run.py", "experiment=demo"]
    print(" ".join(["python", *command[1:]]), flush=True)
    subprocess.run(command, cwd=ROOT, check=True)
    run_dir = max((ROOT / "outputs/sample/ptmt").iterdir())  # names begin with the time
    result = json.loads((run_dir / "result.json").read_text())
    baseline = bag_of_words(ROOT / "data/sample-v1")

    table = Table(title="Test split of the built-in sample", title_justify="left")
    table.add_column("metric")
    table.add_column("ptmt", justify="right")
    table.add_column("bag of words", justify="right")
    for name in ("h_f1_macro", "h_f1_macro_harmonic", "h_f1_micro", "exact_match"):
        table.add_row(name, f"{result['test'][name]:.3f}", f"{baseline['test'][name]:.3f}")
    table.add_row("training", f"{result['seconds']['fit']:.0f} s", "")
    console = Console()
    console.print(table)
    console.print(f"run: {run_dir.relative_to(ROOT)}", highlight=False)


if __name__ == "__main__":
    main()
