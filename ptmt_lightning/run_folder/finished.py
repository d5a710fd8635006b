"""Finished runs, read from their folders, and the settings in which they differ."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ptmt_lightning.run_folder.earlier_versions import with_new_places
from ptmt_lightning.run_folder.paths import RunFolder

# The settings that describe a run best, looked at first; the others follow in the configuration's order.
_PREFERRED = ("dataset.name", "run.variant", "run.model", "run.backbone", "run.loss", "dataset.train_fraction")
# Beginnings of the keys of settings that change nothing of what is learnt.
IGNORED_SETTINGS = (
    "dataset.path", "cache_dir", "logger", "callbacks.progress_bar", "callbacks.epoch_log",
    "callbacks.pruning", "callbacks.throughput",
    "callbacks.vitals", "callbacks.early_stopping.strict", "trainer.enable_", "trainer.log_every", "run.dir",
    "run.group", "resume", "keep_checkpoints",
)  # fmt: skip
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, but only there with libyaml


class Run(NamedTuple):
    """A finished run."""

    folder: Path
    result: dict[str, Any]
    settings: dict[str, str]  # of config.yaml, by dotted key; without nulls, seeds and IGNORED_SETTINGS


def find_runs(paths: Iterable[Path]) -> tuple[list[Run], list[str]]:
    """Return the finished runs in and below ``paths``, and a line about each folder that only looks like one.

    Raises:
        ValueError: a path is not a folder.
    """
    runs, left_out = list[Run](), list[str]()
    seen = set[Path]()
    for path in paths:
        if not path.is_dir():
            raise ValueError(f"{path}: no such folder; expected a run's folder or one with runs below it")
        for folder in _candidates(path, seen):
            try:
                runs.append(_read(folder))
            except (ValueError, OSError, RecursionError) as error:
                left_out.append(f"{folder}: {error}")
    return _with_distinct_datasets(runs), left_out


def _with_distinct_datasets(runs: Sequence[Run]) -> list[Run]:
    """Add the beginning of their fingerprint to the names of data sets that several have, so as not to mix them."""
    known: dict[tuple[str | None, ...], set[str]] = {}
    for run in runs:
        known.setdefault(_dataset(run), set()).add(run.result.get("dataset_fingerprint", "unknown"))
    distinct = []
    for run in runs:
        if len(known[_dataset(run)]) > 1:
            # Runs of versions before 0.2 have none.
            name = f"{run.result['dataset']} ({run.result.get('dataset_fingerprint', 'unknown')[:7]})"
            run = run._replace(result=run.result | {"dataset": name}, settings=run.settings | {"dataset.name": name})
        distinct.append(run)
    return distinct


def _dataset(run: Run) -> tuple[str | None, ...]:
    return run.result["dataset"], run.settings.get("dataset.fold")  # the folds of one data set are known by number


def _candidates(path: Path, seen: set[Path]) -> Iterator[Path]:
    """Yield each folder with a result, or with a configuration and traces of a run that has begun; each once."""
    for name, folders, files in os.walk(path, followlinks=True):
        folder = Path(name)
        if folder.resolve() in seen:  # a link, or a folder that was given twice
            folders.clear()
            continue
        seen.add(folder.resolve())
        folders.sort()
        run = RunFolder(folder)
        has_begun = run.checkpoints.name in folders or run.metrics.name in files
        if run.result.name in files or (run.config.name in files and has_begun):
            yield folder


def _read(folder: Path) -> Run:
    run = RunFolder(folder)
    if not run.is_finished:
        raise ValueError("not finished, there is no result.json")
    try:
        result = json.loads(run.result.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"result.json is broken ({error})") from error
    result = result if isinstance(result, dict) else {}
    missing = [key for key in ("dataset", "model", "seed", "val", "test", "seconds") if key not in result]
    if missing or not isinstance(result["seconds"], dict) or "fit" not in result["seconds"]:
        raise ValueError(
            f"result.json is not of a run of this project: no {', '.join(missing) or 'seconds of the training'}"
        )
    if problem := _problem(result):
        raise ValueError(f"result.json is broken ({problem})")
    return Run(folder, result, _read_settings(run.config))


def _problem(result: dict[str, Any]) -> str | None:
    """Return what of a result is not of the kind that this project writes; None if all is."""
    tables = [result[name] for name in ("val", "test", "seconds")]
    if not all(isinstance(table, dict) for table in tables):
        return "val or test is no table of scores"
    numbers = [value for table in tables for value in table.values() if value is not None]
    if not all(isinstance(value, (int, float)) for value in numbers):
        return "a score or a time is no number"
    texts = (result["dataset"], result["model"], result.get("dataset_fingerprint", ""))
    return None if all(isinstance(text, str) for text in texts) else "a name is no text"


def _read_settings(path: Path) -> dict[str, str]:
    if not path.exists():
        raise ValueError("no config.yaml")
    try:
        config = with_new_places(yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER))
        return dict(_settings(config, config["run"]["dir"]))
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"config.yaml is broken ({' '.join(str(error).split())})") from error


def _settings(node: dict[str, Any], run_dir: str, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in node.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _settings(value, run_dir, f"{key}.")
        elif value is not None and not _is_ignored(key, value, run_dir):
            yield key, _text(value)


def _is_ignored(key: str, value: object, run_dir: str) -> bool:
    is_copy = key.startswith("model.optimizer.")  # of the settings under optimizer
    is_below = f"{value}/".startswith(f"{run_dir}/")
    return key == "test" or key.rsplit(".", 1)[-1] == "seed" or key.startswith(IGNORED_SETTINGS) or is_copy or is_below


def _text(value: object) -> str:
    """Return a setting as text; equal numbers, such as 1 and 1.0, give equal texts."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def differing(runs: Sequence[Run]) -> list[str]:
    """Return settings that together tell all configurations apart.

    Each of them separates runs that those before it do not.
    """
    order = [*_PREFERRED, *(key for key in known_settings(runs) if key not in _PREFERRED)]
    chosen: list[str] = []
    parts = 1
    for key in order:
        finer = len({tuple(run.settings.get(name) for name in (*chosen, key)) for run in runs})
        if finer > parts:
            chosen.append(key)
            parts = finer
    return chosen


def known_settings(runs: Iterable[Run]) -> list[str]:
    """Return the settings that any of the runs has, in the order in which they come."""
    return list(dict.fromkeys(key for run in runs for key in run.settings))


def headings(settings: Sequence[str]) -> list[str]:
    """Return short names of settings: the last part of each key, or the whole key where two share that part."""
    short = [key.rsplit(".", 1)[-1] for key in settings]
    names = [name if short.count(name) == 1 else key for name, key in zip(short, settings, strict=True)]
    return ["dataset" if key == "dataset.name" else name for name, key in zip(names, settings, strict=True)]
