"""Reads finished runs from their folders, and finds out in which settings they differ."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

# What names a run best comes first; then the configuration's own order.
_PREFERRED = ("dataset.name", "run.variant", "run.model", "run.backbone", "run.loss", "dataset.train_fraction")
# How the settings begin that change nothing of what is learnt.
NO_CHOICE = (
    "dataset.path", "cache_dir", "logger", "callbacks.progress_bar", "callbacks.pruning", "callbacks.throughput",
    "callbacks.vitals", "callbacks.early_stopping.strict", "trainer.enable_", "trainer.log_every", "run.dir",
    "run.group", "resume", "keep_checkpoints",
)  # fmt: skip
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there


class Run(NamedTuple):
    """A finished run."""

    folder: Path
    result: dict[str, Any]
    settings: dict[str, str]  # of config.yaml, dotted keys, those that are not null; without NO_CHOICE and seeds


def find_runs(paths: Iterable[Path]) -> tuple[list[Run], list[str]]:
    """The finished runs in and below ``paths``, and a line for each folder that looks like a run and is none.

    Raises:
        ValueError: a path is no folder.
    """
    runs, left_out = list[Run](), list[str]()
    seen = set[Path]()
    for path in paths:
        if not path.is_dir():
            raise ValueError(f"{path}: no such folder; expected a run's folder or one with runs below it")
        for folder in _candidates(path, seen):
            try:
                runs.append(_read(folder))
            except ValueError as error:
                left_out.append(f"{folder}: {error}")
    return runs, left_out


def _candidates(path: Path, seen: set[Path]) -> Iterator[Path]:
    """Folders with a result, or with a configuration and what a run that is not finished leaves; each once."""
    for name, folders, files in os.walk(path, followlinks=True):
        folder = Path(name)
        if folder.resolve() in seen:  # a link, or a folder that was given twice
            folders.clear()
            continue
        seen.add(folder.resolve())
        folders.sort()
        if "result.json" in files or ("config.yaml" in files and ("checkpoints" in folders or "metrics.csv" in files)):
            yield folder


def _read(folder: Path) -> Run:
    file = folder / "result.json"
    if not file.exists():
        raise ValueError("not finished, there is no result.json")
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"result.json is broken ({error})") from error
    result = result if isinstance(result, dict) else {}
    missing = [key for key in ("dataset", "model", "seed", "val", "test", "seconds") if key not in result]
    if missing or not isinstance(result["seconds"], dict) or "fit" not in result["seconds"]:
        raise ValueError(
            f"result.json is not of a run of this project: no {', '.join(missing) or 'seconds of the training'}"
        )
    return Run(folder, result, _read_settings(folder / "config.yaml"))


def _read_settings(path: Path) -> dict[str, str]:
    if not path.exists():
        raise ValueError("no config.yaml")
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
        return dict(_settings(config, config["run"]["dir"]))
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"config.yaml is broken ({' '.join(str(error).split())})") from error


def _settings(node: dict[str, Any], run_dir: str, prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in node.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _settings(value, run_dir, f"{key}.")
        elif value is not None and not _is_no_choice(key, value, run_dir):
            yield key, _text(value)


def _is_no_choice(key: str, value: object, run_dir: str) -> bool:
    is_repeated = key.startswith("model.optimizer.")  # from optimizer
    is_below = f"{value}/".startswith(f"{run_dir}/")
    return key == "test" or key.rsplit(".", 1)[-1] == "seed" or key.startswith(NO_CHOICE) or is_repeated or is_below


def _text(value: object) -> str:
    """Equal numbers are equal texts."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def differing(runs: Sequence[Run]) -> list[str]:
    """The fewest settings that tell all configurations apart: each tells apart what those before it do not."""
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
    """The settings that any of the runs has, in their order."""
    return list(dict.fromkeys(key for run in runs for key in run.settings))


def headings(settings: Sequence[str]) -> list[str]:
    """Short names of settings."""
    short = [key.rsplit(".", 1)[-1] for key in settings]
    names = [name if short.count(name) == 1 else key for name, key in zip(short, settings, strict=True)]
    return ["dataset" if key == "dataset.name" else name for name, key in zip(names, settings, strict=True)]
