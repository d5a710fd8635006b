"""Runs every combination of an experiment's choices that has no result yet, and collects the scores in a table.

    python experiments/grid.py experiments/NAME/grid.yaml [--only AXIS=CHOICE,...] [RUN_ARGUMENT...]

``grid.yaml`` has two parts: ``common``, arguments of ``run.py`` for all runs, and ``axes``, which gives each axis its
choices, each with its own arguments. A choice of the axis ``variant`` also becomes the run's ``run.variant``. Further
arguments (``backbone.name=FOLDER``) come last and override the others. In all of them ``{data}`` stands for the folder
that ``--data`` names.

After each run, the scores are written to ``results.csv`` beside the grid. A run is not repeated when its folder has a
``result.json``, or the table has its rows (column ``run``). A run that was interrupted is resumed from its last
checkpoint; one that failed does not stop the others.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from collect import rows
from omegaconf import OmegaConf

from ptmt_lightning.run_folder.paths import RunFolder

RUN = Path(__file__).parents[1] / "run.py"


class Job(NamedTuple):
    """One combination of choices, which is one run."""

    folder: Path
    variant: str | None
    arguments: list[str]


def main() -> None:
    """Make the runs that are missing, and write ``results.csv`` after each.

    Raises:
        SystemExit: an argument is not valid, or runs have failed; the message names them.
    """
    options, further = _options()
    jobs = list(_jobs(options, further))
    table = options.grid.with_name("results.csv")
    known = set(pd.read_csv(table)["run"]) if table.exists() else set()
    failed = []
    if options.collect:
        _collect(table, jobs)
        return
    for number, job in enumerate(jobs, start=1):
        if job.folder.name not in known and not RunFolder(job.folder).is_finished:
            print(f"[{number}/{len(jobs)}] {job.folder.name}", flush=True)
            if not options.dry_run and _run(job):
                failed.append(job.folder)
        if not options.dry_run:
            _collect(table, jobs)
    if failed:
        sys.exit("failed: " + ", ".join(map(str, failed)))


def _options() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path)
    parser.add_argument("--data", default="data", help="folder of the data sets (default: data)")
    parser.add_argument("--only", action="append", default=[], metavar="AXIS=CHOICE,...", help="others are left out")
    parser.add_argument("--outputs", type=Path, default=Path("outputs/experiments"))
    parser.add_argument("--collect", action="store_true", help="write the rows of finished runs, run nothing")
    parser.add_argument("--dry-run", action="store_true", help="list what would be run")
    parser.add_argument("arguments", nargs="*", help="further arguments of run.py")
    options = parser.parse_intermixed_args()
    return options, options.arguments


def _jobs(options: argparse.Namespace, further: list[str]) -> Iterator[Job]:
    grid = OmegaConf.to_container(OmegaConf.load(options.grid))
    assert isinstance(grid, dict)
    wanted: dict[str, list[str]] = {}
    for axis, _, choices in (only.partition("=") for only in options.only):
        known = [str(choice) for choice in grid["axes"].get(axis, [])]
        for choice in choices.split(","):
            if axis not in grid["axes"]:
                sys.exit(f"error: --only {axis}=...: no such axis in {options.grid}; known: {', '.join(grid['axes'])}")
            if choice not in known:
                sys.exit(f"error: --only {axis}={choice}: no such choice in {options.grid}; known: {', '.join(known)}")
            wanted.setdefault(axis, []).append(choice)
    axes = [
        [
            (axis, str(choice), arguments)
            for choice, arguments in choices.items()
            if str(choice) in wanted.get(axis, [str(choice)])
        ]
        for axis, choices in grid["axes"].items()
    ]
    for combination in itertools.product(*axes):
        folder = options.outputs / options.grid.parent.name / "-".join(choice for _, choice, _ in combination)
        arguments = [*grid["common"], *(argument for *_, own in combination for argument in own), *further]
        variant = next((choice for axis, choice, _ in combination if axis == "variant"), None)
        if variant is not None:
            arguments.append(f"run.variant={variant}")
        yield Job(folder.resolve(), variant, [argument.replace("{data}", options.data) for argument in arguments])


def _run(job: Job) -> int:
    """Make or resume a run, and return its exit status; the output goes to a ``.log`` file beside the run's folder."""
    begun = RunFolder(job.folder).has_checkpoint
    if job.folder.exists() and not begun:
        shutil.rmtree(job.folder)  # left by a run that was interrupted before its first checkpoint
    arguments = [f"resume={job.folder}"] if begun else [*job.arguments, f"hydra.run.dir={job.folder}"]
    log = job.folder.with_name(f"{job.folder.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        return subprocess.run([sys.executable, str(RUN), *arguments], stdout=file, stderr=file, check=False).returncode


def _collect(path: Path, jobs: list[Job]) -> None:
    """Write the rows of finished runs to the table ``path``; rows of runs whose folders are not here are kept."""
    found = [
        row | {"run": job.folder.name, "variant": job.variant or row["variant"]}
        for job in jobs
        if RunFolder(job.folder).is_finished
        for row in rows(job.folder)
    ]
    table = pd.concat([pd.DataFrame(found), pd.read_csv(path) if path.exists() else pd.DataFrame()])
    if len(table):
        table = table.drop_duplicates(["run", "split"]).sort_values(["run", "split"])
        table.to_csv(path.with_suffix(".tmp"), index=False)
        path.with_suffix(".tmp").replace(path)


if __name__ == "__main__":
    main()
