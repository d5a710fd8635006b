"""To go on with an earlier run: asked for, or restarted by SLURM or torchrun."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from ptmt_lightning.run_folder.paths import RunFolder

# Modules and classes that runs of version 0.1 name in their config.yaml, and where they stand now.
_MOVED = {
    "ptmt_lightning.callbacks": "ptmt_lightning.training.callbacks",
    "ptmt_lightning.checkpoints": "ptmt_lightning.training.checkpoints",
    "ptmt_lightning.loggers": "ptmt_lightning.training.loggers",
    "ptmt_lightning.data.amazon": "ptmt_lightning.data.benchmarks.amazon",
    "ptmt_lightning.data.bgc": "ptmt_lightning.data.benchmarks.bgc",
    "ptmt_lightning.data.bugs": "ptmt_lightning.data.benchmarks.bugs",
    "ptmt_lightning.data.wos": "ptmt_lightning.data.benchmarks.wos",
    "ptmt_lightning.data.datamodule.SampleDataModule": "ptmt_lightning.data.sample.SampleDataModule",
    "ptmt_lightning.models.ptmt.PTMT": "ptmt_lightning.models.ptmt.module.PTMT",
}


def is_restarted(run_dir: Path) -> bool:
    """Whether SLURM or torchrun has started this run before, and it left something to go on from, or its result."""
    restarts = (os.environ.get(name) for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))
    folder = RunFolder(run_dir)
    left = folder.has_checkpoint or folder.is_finished
    return left and any(int(count or 0) for count in restarts)


def resumed(config: DictConfig, run_dir: Path) -> DictConfig:
    """The configuration of the run in ``run_dir``, where ``config.resume`` or a restart asks for it; else ``config``.

    Raises:
        ValueError: the folder holds no run, or was moved.
    """
    if config.resume is None:
        if not is_restarted(run_dir):
            return config
        config.resume = str(run_dir)
    folder = RunFolder(run_dir)
    if folder.is_finished and not folder.has_checkpoint:
        raise ValueError(
            f"resume={str(run_dir)!r}: that run is finished and kept no checkpoints; its weights are in model/"
        )
    for name, found in (("config.yaml", folder.config.exists()), ("checkpoints/last.ckpt", folder.has_checkpoint)):
        if not found:
            raise ValueError(f"resume={str(run_dir)!r}: no {name} there; expected the folder of an earlier run")
    earlier = _load_config(folder.config)
    if Path(earlier.run.dir) != run_dir:
        raise ValueError(
            f"resume={str(run_dir)!r}: that run was made in {earlier.run.dir!r}; move the folder back there"
        )
    earlier.resume = config.resume
    for key in config.keys() - earlier.keys():  # a setting that the earlier version did not have
        earlier[key] = config[key]
    return earlier


def _load_config(path: Path) -> DictConfig:
    """Read a run's configuration; what has moved since is looked for in its new place."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    config = OmegaConf.create(_with_new_places(content))
    assert isinstance(config, DictConfig)
    return config


def _with_new_places(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_new_places(value) for value in node]
    if not isinstance(node, dict):
        return node
    moved = {key: _with_new_places(value) for key, value in node.items()}
    if isinstance(target := moved.get("_target_"), str):
        module, _, name = target.rpartition(".")
        moved["_target_"] = _MOVED.get(target) or (f"{_MOVED[module]}.{name}" if module in _MOVED else target)
    return moved
