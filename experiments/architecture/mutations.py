"""Break core code in ten places, one at a time, and name the quick test that notices.

``python experiments/architecture/mutations.py`` works on a copy of the checkout and prints the table of README.md. Its
exit code is 1 if a mutation goes unnoticed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT_DIR = Path(__file__).parents[2]


class Mutation(NamedTuple):
    """A replacement in a file of ``ptmt_lightning``, and the tests of that file's subject."""

    file: str
    before: str
    after: str
    meaning: str
    tests: str


MUTATIONS = [
    Mutation(
        "losses.py", "(logits.sigmoid() - margin)", "logits.sigmoid()",
        "easy negatives cost something in spite of the margin", "test_losses.py",
    ),
    Mutation(
        "losses.py", 'if scope == "level" else', 'if scope == "all" else',
        "the scopes of the count loss are exchanged", "test_losses.py",
    ),
    Mutation(
        "losses.py", "ended = ~level_targets.any(dim=-1)", "ended = level_targets.any(dim=-1)",
        "cross-entropy takes levels with a label for those where the path has ended", "test_losses.py",
    ),
    Mutation(
        "metrics.py", 'counts.sum(0) > 0 if classes == "present"', 'counts[0] > 0 if classes == "present"',
        "macro averages leave out classes that are never right", "test_metrics.py",
    ),
    Mutation(
        "metrics.py", "scored.flip(-1).cumsum(-1)", "scored.cumsum(-1)",
        "the precision-recall curve begins at the lowest score", "test_auprc.py",
    ),
    Mutation(
        "taxonomy/taxonomy.py", "&= supporters > 0", "&= supporters >= 0",
        "nothing is pruned", "test_taxonomy.py test_taxonomy_selections.py",
    ),
    Mutation(
        "taxonomy/taxonomy.py", "if parent in selected]", "if parent in inner]",
        "paths go on above the labels that were selected", "test_taxonomy_paths.py",
    ),
    Mutation(
        "models/ptmt/collator.py", "< self._filled_lengths(lengths)", "<= self._filled_lengths(lengths)",
        "one position of padding is attended to", "models/ptmt/test_collator.py",
    ),
    Mutation(
        "models/ptmt/collator.py", ">= self.p_label", "< self.p_label",
        "slots show their labels as often as they should be masked", "models/ptmt/test_label_slots.py",
    ),
    Mutation(
        "thresholds.py", "-sum(abs(threshold - 0.5)", "sum(abs(threshold - 0.5)",
        "of equally good thresholds the ones farthest from 0.5 are chosen", "test_thresholds.py",
    ),
]  # fmt: skip


def noticed_by(mutation: Mutation, checkout: Path) -> str | None:
    """Return the first test that fails with this mutation, or None."""
    path = checkout / "ptmt_lightning" / mutation.file
    whole = path.read_text()
    if whole.count(mutation.before) != 1:
        raise ValueError(f"{mutation.file}: expected {mutation.before!r} once; mend this list")
    path.write_text(whole.replace(mutation.before, mutation.after))
    tests = [f"tests/{name}" for name in mutation.tests.split()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-m", "not slow", *tests],
        cwd=checkout, env=os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    path.write_text(whole)
    found = re.search(r"^FAILED (tests/\S+?)::(\w+)", done.stdout, re.MULTILINE)
    if done.returncode not in (0, 1) or (done.returncode and not found):
        raise RuntimeError(done.stdout + done.stderr)
    return f"`{found[1]}`: {found[2].replace('_', ' ')}" if found else None


def main() -> None:
    """Print one row a mutation."""
    print("| file | broken so that | noticed by |\n|---|---|---|")
    unnoticed = 0
    with tempfile.TemporaryDirectory() as folder:
        checkout = Path(folder) / "checkout"
        shutil.copytree(ROOT_DIR, checkout, ignore=shutil.ignore_patterns(".git", ".venv", "outputs", "__pycache__"))
        for mutation in MUTATIONS:
            test = noticed_by(mutation, checkout)
            unnoticed += test is None
            print(f"| `{mutation.file}` | {mutation.meaning} | {test or '**nothing**'} |", flush=True)
    sys.exit(unnoticed > 0)


if __name__ == "__main__":
    main()
