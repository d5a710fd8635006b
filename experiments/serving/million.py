"""Sends a million short texts through ``ptmt predict``, kills and resumes it, and counts lost and doubled rows.

python experiments/serving/million.py RUN/model
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
import time
from pathlib import Path

import pandas as pd
from model_and_data import PTMT


def main() -> None:
    """Predict the texts with interruptions, and write ``million.csv``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model/ folder of a run, or an exported one")
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="at most, before a kill")
    options = parser.parse_args()
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name) / "texts.jsonl", Path(name) / "labels.jsonl"
        with source.open("w") as file:
            for number in range(options.texts):
                words = " ".join(f"word{draw.randrange(500)}" for _ in range(draw.randrange(3, 9)))
                file.write(json.dumps({"id": f"d{number}", "text": words}) + "\n")
        memory: list[float] = []
        began = time.monotonic()
        for leg in range(options.kills + 1):
            limit = draw.uniform(0.3, 1) * options.seconds if leg < options.kills else float("inf")
            process = subprocess.Popen([PTMT, "predict", options.model, source, "-o", target, "--batch-size", "256"])
            until = time.monotonic() + limit
            while process.poll() is None and time.monotonic() < until:
                time.sleep(1)
                memory.append(_memory(process.pid))
            if process.poll() is None:
                process.kill()
            process.wait()
        seconds = time.monotonic() - began
        numbers = [0] * options.texts
        with target.open() as file:
            for line in file:
                record = json.loads(line)
                assert record["id"] == f"d{record['row'] - 1}"
                numbers[record["row"] - 1] += 1
    last = [value for value in memory if value]
    quarter = len(last) // 4
    row = {
        "texts": options.texts, "kills": options.kills, "lost": numbers.count(0),
        "doubled": sum(number > 1 for number in numbers), "seconds": seconds,
        "memory_mb_second_quarter": sorted(last[quarter : 2 * quarter])[quarter // 2],
        "memory_mb_last_quarter": sorted(last[-quarter:])[quarter // 2], "memory_mb_most": max(last),
    }  # fmt: skip
    print(pd.Series(row).to_string())
    pd.DataFrame([row]).round(1).to_csv(Path(__file__).with_name("million.csv"), index=False)


def _memory(pid: int) -> float:
    """Return the resident memory of a process in MB; 0 for a process that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except FileNotFoundError:
        return 0.0
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")]
    return int(sizes[0]) / 1024 if sizes else 0.0


if __name__ == "__main__":
    main()
