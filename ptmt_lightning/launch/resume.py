"""Which run to go on with, for how long, and with which configuration."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from lightning_utilities.core.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from ptmt_lightning.launch.program import typed_program
from ptmt_lightning.run_folder.earlier_versions import with_new_places
from ptmt_lightning.run_folder.paths import LENGTHS, RunFolder, moved_paths
from ptmt_lightning.training.resuming import check_further
from ptmt_lightning.utils.checks import check_range
from ptmt_lightning.utils.files import read_json_object

log = logging.getLogger(__name__)

_COUNTED = dict(zip(LENGTHS, ("epochs", "steps"), strict=True))  # where result.json says how long the run was


def is_restarted(run_dir: Path) -> bool:
    """Return whether SLURM or torchrun has restarted a run that left a checkpoint or a result the time before."""
    restarts = (os.environ.get(name) for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))
    folder = RunFolder(run_dir)
    left = folder.has_checkpoint or folder.is_finished
    return left and any(int(count or 0) for count in restarts)


def resumed(config: DictConfig, run_dir: Path, typed: Sequence[str] = ()) -> DictConfig:
    """Return the earlier configuration of the run if ``config.resume`` or a restart asks for it, else ``config``.

    Args:
        config: the configuration of this start; ``resume`` is set in it after a restart.
        run_dir: folder of the run, which may have been elsewhere when the run began.
        typed: what the user typed. A length of the training (:data:`.LENGTHS`) beside ``resume`` replaces the run's.

    Raises:
        ValueError: the folder holds no run that can be resumed, or one that is as long already.
    """
    if config.resume is None:
        if not is_restarted(run_dir):
            return config
        config.resume, typed = str(run_dir), ()  # what was typed began the run, which may have gone on further since
    folder = RunFolder(run_dir)
    if folder.is_finished and not folder.has_checkpoint:
        command = shlex.join([*typed_program(), "...", "backbone=bert", f"backbone.name={folder.model}"])
        raise ValueError(
            f"resume={str(run_dir)!r}: that run is finished and kept no checkpoints (keep_checkpoints=true does); its "
            f"weights are in model/: begin a new run from them by its own command with `{command}`"
        )
    for name, found in (("config.yaml", folder.config.exists()), ("checkpoints/last.ckpt", folder.has_checkpoint)):
        if not found:
            raise ValueError(f"resume={str(run_dir)!r}: no {name} there; expected the folder of an earlier run")
    content = with_new_places(OmegaConf.to_container(OmegaConf.load(folder.config)))
    if OmegaConf.select(OmegaConf.create(content), "dataset._target_") is None:
        raise ValueError(f"resume={str(run_dir)!r}: that run was started from Python; go on with train(resume=True)")
    if (before := content["run"]["dir"]) != str(run_dir):
        rank_zero_only(log.info)("the run was moved here from %s", before)
    earlier = OmegaConf.create(moved_paths(content, before, str(run_dir)))
    assert isinstance(earlier, DictConfig)
    earlier.resume = config.resume
    for key in config.keys() - earlier.keys():  # settings that the version of the earlier run did not have
        earlier[key] = config[key]
    for key in LENGTHS:
        if any(argument.lstrip("+").startswith(f"{key}=") for argument in typed):
            if (value := OmegaConf.select(config, key)) is not None:
                check_range(key, value, -1, integer=True)
            if folder.is_finished:
                check_further(key, value, read_json_object(folder.result, "start the run anew").get(_COUNTED[key]))
            OmegaConf.update(earlier, key, value)
    return earlier
