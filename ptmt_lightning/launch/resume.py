"""Continuation of an earlier run, on the user's request or after a restart by SLURM or torchrun."""

from __future__ import annotations

import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ptmt_lightning.run_folder.earlier_versions import with_new_places
from ptmt_lightning.run_folder.paths import RunFolder


def is_restarted(run_dir: Path) -> bool:
    """Return whether SLURM or torchrun has restarted a run that left a checkpoint or a result the time before."""
    restarts = (os.environ.get(name) for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))
    folder = RunFolder(run_dir)
    left = folder.has_checkpoint or folder.is_finished
    return left and any(int(count or 0) for count in restarts)


def resumed(config: DictConfig, run_dir: Path) -> DictConfig:
    """Return the earlier configuration of the run if ``config.resume`` or a restart asks for it, else ``config``.

    Args:
        config: the configuration of this start; ``resume`` is set in it after a restart.
        run_dir: folder of the run.

    Raises:
        ValueError: the folder holds no run that can be resumed, or was moved.
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
    earlier = OmegaConf.create(with_new_places(OmegaConf.to_container(OmegaConf.load(folder.config))))
    assert isinstance(earlier, DictConfig)
    if OmegaConf.select(earlier, "dataset._target_") is None:
        raise ValueError(f"resume={str(run_dir)!r}: that run was started from Python; go on with train(resume=True)")
    if Path(earlier.run.dir) != run_dir:
        raise ValueError(
            f"resume={str(run_dir)!r}: that run was made in {earlier.run.dir!r}; move the folder back there"
        )
    earlier.resume = config.resume
    for key in config.keys() - earlier.keys():  # settings that the version of the earlier run did not have
        earlier[key] = config[key]
    return earlier
