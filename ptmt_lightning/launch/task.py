"""One run: makes objects from the settings, trains and tests them. The code that is called from here knows no Hydra."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import lightning
import torch
import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig

from ptmt_lightning.launch.overrides import mask_file, written
from ptmt_lightning.launch.resume import resumed
from ptmt_lightning.models.base import HTCModel
from ptmt_lightning.run_folder.ending import show
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.training.build import build
from ptmt_lightning.training.checks import check_run
from ptmt_lightning.training.quiet import quiet_libraries
from ptmt_lightning.training.train import train
from ptmt_lightning.utils.checks import check_range
from ptmt_lightning.utils.errors import reported_errors


def run_task(config: DictConfig, run_dir: Path) -> float | None:
    """Make the objects that the configuration names, train and test.

    Args:
        config: the composed configuration.
        run_dir: folder of the run.

    Returns:
        The best value of the monitored metric, for a search; None if there is none.

    Raises:
        SystemExit: a setting is not valid (its message is one line), or the process was told to end.
    """
    quiet_libraries()
    with reported_errors(run_dir):
        config = resumed(config, run_dir, HydraConfig.get().overrides.task)
        folder, is_new = RunFolder(run_dir), config.resume is None
        if is_new and not config.overwrite:
            folder.check_free()
        settings = written(config)
        mask_hydras_files(run_dir)
        if not sys.stdout.isatty():  # a bar in a file is a line of noise an epoch
            config.callbacks.progress_bar = None
            config.trainer.enable_progress_bar = False
        torch.set_float32_matmul_precision(config.impl.matmul_precision)
        check_range("seed", config.seed, 0, 2**32 - 1, integer=True)
        if config.trainer.max_epochs is not None:
            check_range("trainer.max_epochs", config.trainer.max_epochs, -1, integer=True)
        datamodule, backbone, build_model = (
            instantiate(config[key], _convert_="all") for key in ("dataset", "backbone", "model")
        )
        model = build(datamodule, backbone, build_model, seed=config.seed, compile_backbone=config.impl.compile)
        _write_down_rates(settings, model)
        trainer = instantiate(config.trainer, callbacks=parts(config.callbacks), logger=False, _convert_="all")
        _check_launcher(trainer)
        check_run(trainer, datamodule, model)
        if is_new and config.overwrite:
            folder.clear()  # not before all settings are known to be valid, nor after the loggers read the folder
        trainer.loggers = parts(config.logger)
    try:
        with reported_errors(run_dir):
            result = train(
                datamodule=datamodule,
                model=model,
                trainer=trainer,
                run_dir=run_dir,
                config=settings,
                test=config.test,
                keep_checkpoints=config.keep_checkpoints,
                resume=not is_new,
            )
    except SIGTERMException:
        sys.exit(128 + signal.SIGTERM)  # Lightning's own exit code is 0: a sweep would take the run for finished
    finally:
        wandb.finish()
    show(result, folder)
    score: float | None = result["best_score"]
    return score


def _write_down_rates(settings: dict[str, Any], model: HTCModel) -> None:
    """Put rates that were chosen for the backbone into the settings, so that a resumed run has the same."""
    for name in ("learning_rate", "new_rate_factor"):
        if name in settings["optimizer"]:
            settings["optimizer"][name] = getattr(model.optimizer, name)


def mask_hydras_files(run_dir: Path) -> None:
    """Mask secrets in the settings that Hydra itself writes where ``hydra.output_subdir`` or a sweep asks for it."""
    hydra = HydraConfig.get()
    for path in Path(run_dir, hydra.output_subdir).glob("*.yaml") if hydra.output_subdir else ():
        mask_file(path)


def parts(group: DictConfig) -> list[Any]:
    """Return the objects that a group of the configuration names, without those that are null."""
    return [instantiate(node, _convert_="all") for node in group.values() if node]


def _check_launcher(trainer: lightning.Trainer) -> None:
    """Refuse a sweep in a single process whose runs start ranks, as Lightning starts each with the sweep's command.

    Raises:
        ValueError: it is such a sweep; the message says what to leave out.
    """
    starts_ranks = isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher)
    if starts_ranks and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise ValueError("-m on several devices: expected a process a job; leave out hydra/launcher")
