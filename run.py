"""Train and test one configuration: ``python run.py dataset=sample backbone=tiny``; see README.md."""

import logging
import signal
import sys
import warnings
from pathlib import Path

import hydra
import lightning
import torch
import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig

from ptmt_lightning import config
from ptmt_lightning.run_folder import result as results
from ptmt_lightning.training import checks
from ptmt_lightning.training.build import build
from ptmt_lightning.training.train import train
from ptmt_lightning.utils.checks import check_range


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float | None:
    """Build what the configuration names, fit, test; gives the monitored metric to a sweeper."""
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    for quiet in ("utilities.rank_zero", "trainer.connectors.checkpoint_connector"):  # tips and advertisements
        logging.getLogger(f"lightning.pytorch.{quiet}").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec")  # between Lightning and torch; nothing a user could do
    with config.user_errors(run_dir):
        cfg = config.resumed(cfg, run_dir)
        settings = config.plain(cfg)
        torch.set_float32_matmul_precision(cfg.impl.matmul_precision)
        check_range("seed", cfg.seed, 0, 2**32 - 1, integer=True)
        if cfg.trainer.max_epochs is not None:
            check_range("trainer.max_epochs", cfg.trainer.max_epochs, -1, integer=True)
        lightning.seed_everything(cfg.seed, workers=True, verbose=False)
        datamodule, backbone, build_model = (
            instantiate(cfg[key], _convert_="all") for key in ("dataset", "backbone", "model")
        )
        model = build(datamodule, backbone, build_model, compile_backbone=cfg.impl.compile)
        callbacks, loggers = (
            [instantiate(node, _convert_="all") for node in cfg[key].values() if node]
            for key in ("callbacks", "logger")
        )
        trainer = instantiate(cfg.trainer, callbacks=callbacks, logger=loggers, _convert_="all")
        checks.check_trainer(trainer, datamodule)
        checks.check_monitor(cfg.monitor, model)
        config.check_launcher(trainer)
    results.write_config(run_dir, settings)
    try:
        result = train(
            datamodule=datamodule,
            model=model,
            trainer=trainer,
            run_dir=run_dir,
            description=settings["run"],
            config=settings,
            test=cfg.test,
            keep_checkpoints=cfg.keep_checkpoints,
            resume=cfg.resume is not None,
        )
    except SIGTERMException:
        sys.exit(128 + signal.SIGTERM)  # Lightning's own exit code is 0: a sweep would take the run for finished
    finally:
        wandb.finish()
    results.show(result, run_dir)
    score: float | None = result["best_score"]
    return score


if __name__ == "__main__":
    sys.argv = [sys.argv[0], *config.arguments_for_hydra(sys.argv[1:])]
    with config.user_errors():
        config.check_overrides(sys.argv[1:])
        config.check_multirun(sys.argv[1:])
    main()
