"""To go on with an earlier run: asked for, or restarted by SLURM or torchrun."""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ptmt_lightning.run_folder.checkpoint_files import has_checkpoint


def is_restarted(run_dir: Path) -> bool:
    """Whether SLURM or torchrun has started this run before, and it left something to go on from, or its result."""
    restarts = (os.environ.get(name) for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))
    left = has_checkpoint(run_dir / "checkpoints") or (run_dir / "result.json").exists()
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
    saved, folder = run_dir / "config.yaml", run_dir / "checkpoints"
    if (run_dir / "result.json").exists() and not has_checkpoint(folder):
        raise ValueError(
            f"resume={str(run_dir)!r}: that run is finished and kept no checkpoints; its weights are in model/"
        )
    for name, found in (("config.yaml", saved.exists()), ("checkpoints/last.ckpt", has_checkpoint(folder))):
        if not found:
            raise ValueError(f"resume={str(run_dir)!r}: no {name} there; expected the folder of an earlier run")
    earlier = OmegaConf.load(saved)
    assert isinstance(earlier, DictConfig)
    if Path(earlier.run.dir) != run_dir:
        raise ValueError(
            f"resume={str(run_dir)!r}: that run was made in {earlier.run.dir!r}; move the folder back there"
        )
    earlier.resume = config.resume
    return earlier
