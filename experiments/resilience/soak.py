"""Kills a training run at random moments, resumes it each time, and compares its end with that of an undisturbed run.

    python experiments/resilience/soak.py [--kills 20] [RUN_ARGUMENT...]

Three kills of four are SIGKILL, one is SIGTERM, which a scheduler sends first. The moment is anywhere from the start of
the process to well into training, so that some kills hit imports, data, validation, or a checkpoint being written.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ptmt_lightning.run_folder.paths import RunFolder

HERE = Path(__file__).parent
RUN = HERE.parents[1] / "run.py"
ARGUMENTS = [
    "experiment=demo", "trainer.max_epochs=25", "trainer.val_check_interval=0.5", "impl.num_workers=2",
    "callbacks.progress_bar=null", "callbacks.early_stopping=null",
    "callbacks.last_checkpoint.every_minutes=0.03", "+callbacks.last_checkpoint.check_every=1",
]  # fmt: skip


def main() -> None:
    """Make both runs, and write ``soak.log`` and ``results.csv``.

    Raises:
        SystemExit: a run failed without having been killed.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--longest", type=float, default=30, help="seconds from a start to a kill, at most")
    parser.add_argument("--outputs", type=Path, default=Path("outputs/resilience"))
    parser.add_argument("arguments", nargs="*", help="further arguments of run.py")
    options = parser.parse_intermixed_args()
    shutil.rmtree(options.outputs, ignore_errors=True)
    options.outputs.mkdir(parents=True)
    whole, killed = (options.outputs.absolute() / name for name in ("whole", "killed"))
    arguments = [*ARGUMENTS, *options.arguments]
    with (HERE / "soak.log").open("w") as log:
        print(f"run.py {' '.join(arguments)}", file=log)
        _wait(_start(whole, arguments))
        kills = _kill_and_resume(killed, arguments, options, log)
        rows = [("kills", kills, "kills"), *_differences(whole, killed)]
        print(*rows, sep="\n", file=log)
    table = pd.DataFrame(
        [(measure, "demo", value, unit, 0) for measure, value, unit in rows],
        columns=["measure", "setting", "value", "unit", "spread"],
    )
    table.to_csv(HERE / "results.csv", index=False)
    print(table.to_string())


def _start(folder: Path, arguments: list[str]) -> subprocess.Popen[bytes]:
    if not arguments[0].startswith("resume="):
        arguments = [*arguments, f"hydra.run.dir={folder}"]
    with folder.with_suffix(".out").open("ab") as file:
        return subprocess.Popen([sys.executable, str(RUN), *arguments], stdout=file, stderr=file)


def _wait(process: subprocess.Popen[bytes]) -> None:
    if process.wait():
        sys.exit(f"error: run.py ended with {process.returncode}")


def _kill_and_resume(folder: Path, arguments: list[str], options: argparse.Namespace, log: Any) -> int:
    moments = random.Random(options.seed)
    kills = 0
    while True:
        begun = RunFolder(folder).has_checkpoint
        if folder.exists() and not begun:
            shutil.rmtree(folder)
        process = _start(folder, [f"resume={folder}"] if begun else arguments)
        if kills == options.kills:
            _wait(process)
            return kills
        how = moments.choice([signal.SIGKILL] * 3 + [signal.SIGTERM])
        seconds = moments.uniform(0, options.longest)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(how)
            process.wait()
            kills += 1
            step = _step(folder)
            print(f"kill {kills}: {how.name} after {seconds:.1f} s; to go on from step {step}", file=log, flush=True)
        else:
            if process.returncode:
                sys.exit(f"error: run.py ended with {process.returncode}")
            print(f"the run ended after {kills} kills", file=log)
            return kills


def _step(folder: Path) -> int | None:
    for path in (RunFolder(folder).last_checkpoint, RunFolder(folder).previous_checkpoint):
        if path.exists():
            return int(torch.load(path, map_location="cpu", weights_only=True)["global_step"])
    return None


def _differences(whole: Path, killed: Path) -> Iterator[tuple[str, float, str]]:
    """Yield the differences between the runs in results, weights, curves and files: measure, value and unit of each."""
    results = [json.loads((folder / "result.json").read_text()) for folder in (whole, killed)]
    same = ("steps", "epochs", "best_checkpoint", "best_score", "thresholds", "num_documents")
    assert [results[0][key] for key in same] == [results[1][key] for key in same]
    splits = [(result["val"], result["test"]) for result in results]
    pairs = [(a[name], b[name]) for a, b in zip(*splits, strict=True) for name in a]
    yield "metric_difference", max(abs(a - b) for a, b in pairs), "F1"
    last = [torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for folder in (whole, killed)]
    yield "weight_difference", max((last[0][name] - last[1][name]).abs().max().item() for name in last[0]), "weight"
    curves = [pd.read_csv(folder / "metrics.csv") for folder in (whole, killed)]
    kept = [name for name in curves[0] if not str(name).endswith("_per_second")]
    yield "different_curve_rows", len(pd.concat([curve[kept] for curve in curves]).drop_duplicates(keep=False)), "rows"
    files = [{str(path.relative_to(folder)) for path in folder.rglob("*")} for folder in (whole, killed)]
    # Whether previous.ckpt is there depends on the time that the run took.
    yield "files_left_behind", len((files[0] ^ files[1]) - {"checkpoints/previous.ckpt"}), "files"
    alive = sum(_mentions(process, killed) for process in Path("/proc").iterdir() if process.name.isdigit())
    yield "processes_left_behind", alive, "processes"


def _mentions(process: Path, folder: Path) -> bool:
    try:
        return str(folder).encode() in (process / "cmdline").read_bytes()
    except OSError:
        return False


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"{(time.monotonic() - started) / 60:.1f} minutes")
