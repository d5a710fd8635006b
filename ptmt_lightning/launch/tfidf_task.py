"""One run of ``model=tfidf``: as in :mod:`.task`, but without a backbone, a loss, an optimiser and a Trainer."""

from __future__ import annotations

import logging
from pathlib import Path

import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning_utilities.core.rank_zero import rank_zero_only
from omegaconf import DictConfig

from ptmt_lightning.launch.overrides import written
from ptmt_lightning.launch.task import mask_hydras_files, parts
from ptmt_lightning.run_folder.ending import show
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.training.loggers import RunWandbLogger
from ptmt_lightning.training.quiet import quiet_libraries
from ptmt_lightning.training.tfidf import build_tfidf, fit_tfidf
from ptmt_lightning.utils.checks import check_range
from ptmt_lightning.utils.errors import reported_errors

log = logging.getLogger(__name__)

_UNUSED = ("backbone", "loss", "optimizer", "trainer", "callbacks", "impl")


@rank_zero_only
def run_tfidf_task(config: DictConfig, run_dir: Path) -> float:
    """Fit and test the model that the configuration names, on rank 0 only.

    Args:
        config: the composed configuration.
        run_dir: folder of the run.

    Returns:
        The value of the monitored metric, for a search.

    Raises:
        SystemExit: a setting is not valid; its message is one line.
    """
    quiet_libraries()
    with reported_errors(run_dir):
        folder = RunFolder(run_dir)
        if not config.overwrite:
            folder.check_free()
        settings = {key: value for key, value in written(config).items() if key not in _UNUSED}
        mask_hydras_files(run_dir)
        _tell_unused()
        check_range("seed", config.seed, 0, 2**32 - 1, integer=True)
        datamodule, build_model = (instantiate(config[key], _convert_="all") for key in ("dataset", "model"))
        model = build_tfidf(datamodule, build_model, monitor=config.monitor)
        if config.overwrite:
            folder.clear()  # not before all settings are known to be valid
        wandb_logger = next((logger for logger in parts(config.logger) if isinstance(logger, RunWandbLogger)), None)
    try:
        with reported_errors(run_dir):
            result = fit_tfidf(
                datamodule=datamodule,
                model=model,
                run_dir=run_dir,
                config=settings,
                monitor=config.monitor,
                test=config.test,
                wandb_logger=wandb_logger,
            )
    finally:
        wandb.finish()
    show(result, folder)
    score: float = result["best_score"]
    return score


def _tell_unused() -> None:
    """Say which of the user's settings have no meaning for this model; a sweep may have them for others."""
    typed = HydraConfig.get().overrides.task
    unused = [argument for argument in typed if argument.lstrip("+~").split("=")[0].split(".")[0] in _UNUSED]
    if unused:
        log.warning("model=tfidf has no %s; not used: %s", ", ".join(_UNUSED), " ".join(unused))
