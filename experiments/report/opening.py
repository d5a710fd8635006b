"""Measures how long the page of ``ptmt report`` takes in a browser, for real runs and for many runs.

    python experiments/report/opening.py FOLDER [FOLDER ...] [--page PAGE] [--runs 1000]

The many runs are copies of those in the folders. Writes ``opening.csv``. With ``--page`` it also keeps the page of the
real runs at PAGE, and a picture of its beginning beside it. Needs the browser chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from playwright.sync_api import Page, expect, sync_playwright

from ptmt_lightning.run_folder.finished import find_runs

PTMT = str(Path(sys.executable).with_name("ptmt"))
FILES = ("model", "config.yaml", "metrics.csv", "per_label.csv", "predictions.jsonl")


def main() -> None:
    """Make both pages, measure them, and write ``opening.csv``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--page", type=Path, help="keep the page of the real runs, and a picture of its beginning")
    parser.add_argument("--runs", type=int, default=1000, help="of the large page (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many = _copies(options.folders, folder / "many", options.runs)
        for title, folders in (("real", options.folders), ("copies", [many])):
            page = folder / f"{title}.html"
            before = os.times()
            subprocess.run([PTMT, "report", *folders, "--html", page], check=True)
            made = os.times().children_user - before.children_user  # of the processor: others may keep it busy
            row = {"page": title, "runs": len(find_runs(folders)[0]), "made_seconds": made}
            rows.append(row | {"megabytes": page.stat().st_size / 1e6} | _in_browser(page, options.rounds))
        if options.page:
            shutil.copy(folder / "real.html", options.page)
            shutil.copy(folder / "real.png", options.page.with_suffix(".png"))
    table = pd.DataFrame(rows).round(2)
    table.to_csv(Path(__file__).with_name("opening.csv"), index=False)
    print(table.to_string(index=False))


def _copies(folders: Sequence[Path], target: Path, number: int) -> Path:
    runs, _ = find_runs(folders)
    for index in range(number):
        run = runs[index % len(runs)]
        copy = target / f"{run.folder.name}-{index}"
        copy.mkdir(parents=True)
        for name in FILES:
            if (run.folder / name).exists():
                (copy / name).symlink_to((run.folder / name).resolve())
        (copy / "result.json").write_text(json.dumps(run.result))
    return target


def _in_browser(path: Path, rounds: int) -> dict[str, float]:
    """Take a picture of a page, and return the median seconds until its table, a search and a pick are shown."""
    seconds: dict[str, list[float]] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for _ in range(rounds):
            page = browser.new_page(viewport={"width": 1280, "height": 1500})
            for name, step in {"open": _open, "search": _search, "pick": _pick}.items():
                began = time.perf_counter()
                step(page, path)
                seconds.setdefault(f"{name}_seconds", []).append(time.perf_counter() - began)
            _open(page, path)
            page.screenshot(path=path.with_suffix(".png"))
            page.close()
        browser.close()
    return {name: statistics.median(values) for name, values in seconds.items()}


def _open(page: Page, path: Path) -> None:
    page.goto(path.as_uri())
    expect(page.locator("#compared table").first).to_be_visible(timeout=60_000)


def _search(page: Page, path: Path) -> None:
    first = page.locator("#all tbody th").first.inner_text()
    page.get_by_label("Words that runs must have").fill(first)
    expect(page.locator("#all tbody tr:visible th").first).to_have_text(first)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")


def _pick(page: Page, path: Path) -> None:
    page.get_by_label("second run").select_option(index=page.locator("#second option").count() - 1)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")


if __name__ == "__main__":
    main()
