"""Reads finished runs from their folders, and finds out in which settings they differ."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

# What names a run best comes first; then the configuration's own order.
_PREFERRED = ("dataset.name", "run.variant", "run.model", "run.backbone", "run.loss", "dataset.train_fraction")
_NO_CHOICE = (
    "run.dir", "run.group", "resume", "test", "logger.", "cache_dir", "callbacks.pruning.",
    "model.optimizer.", # again
)  # fmt: skip


class Run(NamedTuple):
    """A finished run."""

    folder: Path
    result: dict[str, Any]
    settings: dict[str, Any]  # of config.yaml, dotted keys; without seeds, folders and loggers


def find_runs(paths: Iterable[Path]) -> tuple[list[Run], list[str]]:
    """The finished runs in and below ``paths``, and a line for each folder that looks like a run and is none.

    Raises:
        ValueError: a path is no folder.
    """
    runs, left_out = list[Run](), list[str]()
    for path in paths:
        if not path.is_dir():
            raise ValueError(f"{path}: no such folder; expected a run's folder or one with runs below it")
        for folder in _candidates(path):
            try:
                runs.append(_read(folder))
            except ValueError as error:
                left_out.append(f"{folder}: {error}")
    return list({run.folder.resolve(): run for run in runs}.values()), left_out


def _candidates(path: Path) -> Iterator[Path]:
    """Folders with a result, or with a configuration and checkpoints: runs that are not finished."""
    folders = {file.parent for file in path.rglob("result.json")}
    folders |= {file.parent for file in path.rglob("config.yaml") if (file.parent / "checkpoints").is_dir()}
    return iter(sorted(folders))


def _read(folder: Path) -> Run:
    file = folder / "result.json"
    if not file.exists():
        raise ValueError("not finished, there is no result.json")
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"result.json is broken ({error})") from error
    missing = [key for key in ("dataset", "model", "seed", "val", "test", "seconds") if key not in result]
    if missing:
        raise ValueError(f"result.json is not of a run of this project: no {', '.join(missing)}")
    if not (folder / "config.yaml").exists():
        raise ValueError("no config.yaml")
    try:
        config = OmegaConf.load(folder / "config.yaml")
        run_dir = str(config.run.dir)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, AttributeError) as error:
        raise ValueError(f"config.yaml is broken ({' '.join(str(error).split())})") from error
    return Run(folder, result, dict(_settings(OmegaConf.to_container(config), run_dir)))


def _settings(node: Any, run_dir: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _settings(value, run_dir, f"{key}.")
        elif name != "seed" and not key.startswith(_NO_CHOICE) and run_dir not in str(value):
            yield key, value


def differing(runs: Sequence[Run]) -> list[str]:
    """The fewest settings that tell all configurations apart: each tells apart what those before it do not."""
    order = [*_PREFERRED, *dict.fromkeys(key for run in runs for key in run.settings if key not in _PREFERRED)]
    chosen: list[str] = []
    parts = 1
    for key in order:
        finer = len({tuple(str(run.settings.get(name)) for name in (*chosen, key)) for run in runs})
        if finer > parts:
            chosen.append(key)
            parts = finer
    return chosen
