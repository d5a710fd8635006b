"""The task function that ``run.py`` calls: train, test on the best checkpoint, leave a run folder."""

from __future__ import annotations

import logging
import shutil
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.data.document import SPLITS
from ptmt_lightning.metrics import HierarchicalMetrics
from ptmt_lightning.models.base import HTCModel
from ptmt_lightning.run_folder import label_embeddings
from ptmt_lightning.run_folder.checkpoint_files import newest, remove_leftovers
from ptmt_lightning.run_folder.result import environment
from ptmt_lightning.thresholds import tune_thresholds
from ptmt_lightning.training.artifacts import write_run
from ptmt_lightning.training.loggers import RunCSVLogger, RunWandbLogger

log = logging.getLogger(__name__)


def train(
    *,
    datamodule: HTCDataModule,
    model: HTCModel,
    trainer: L.Trainer,
    run_dir: Path,
    description: Mapping[str, Any],
    config: Mapping[str, Any],
    test: bool = True,
    keep_checkpoints: bool = True,
    resume: bool = False,
) -> dict[str, Any]:
    """Fit, test the best checkpoint, and write the run folder.

    Args:
        run_dir: written to by rank 0: ``result.json``, ``predictions.jsonl``, tables, ``figures/``, ``model/``.
        description: goes into ``result.json`` as it is: names of model, backbone, loss, variant.
        config: the resolved configuration, plain types, for W&B.
        test: score the test split, where there is one.
        keep_checkpoints: else they are removed when all else is written; ``model/`` has the best weights.
        resume: go on from the newest checkpoint in ``run_dir`` that can be read.

    Returns:
        The content of ``result.json``.
    """
    wandb_logger = next((logger for logger in trainer.loggers if isinstance(logger, RunWandbLogger)), None)
    if wandb_logger:
        wandb_logger.log_hyperparams(dict(config))
    checkpoint = None
    if resume:
        if trainer.is_global_zero:
            remove_leftovers(run_dir)
        # Lightning warns of a loader that can't go on within an epoch; it does not see that its sampler can.
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable")
        checkpoint, content = newest(run_dir / "checkpoints")
        progress = content["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]
        datamodule.start_at(content["epoch"], progress["processed"])
        for curves in trainer.loggers:
            if isinstance(curves, RunCSVLogger):
                curves.rewind(content["global_step"])
        del content
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    if trainer.is_global_zero:
        log.info("run folder: %s", run_dir)
        log.info(
            "%d training documents, %d labels on %d levels; %.1f million parameters; %d x %s",
            datamodule.num_documents("train"), len(model.taxonomy), model.taxonomy.num_levels, num_parameters / 1e6,
            trainer.world_size, trainer.strategy.root_device.type,
        )  # fmt: skip
    model.fit_started = time.perf_counter()
    trainer.fit(model, datamodule, ckpt_path=checkpoint, weights_only=True)
    seconds = {"fit": model.fit_seconds}
    epochs, steps = trainer.current_epoch, trainer.global_step
    best, best_score = _load_best(trainer, model)
    if not model.val_results:  # max_steps came before the first validation
        trainer.validate(model, datamodule, verbose=False)
    if model.tune_threshold:
        _tune(trainer, model, datamodule)
    if test and datamodule.has_split("test"):
        started = time.perf_counter()
        trainer.test(model, datamodule, verbose=False)
        seconds["test"] = time.perf_counter() - started
    embeddings = model.label_embeddings()
    result = {
        "dataset": datamodule.name,
        **description,
        "seed": model.seed,
        "train_fraction": datamodule.train_fraction,
        "val": model.val_results,
        "test": model.test_results,
        "thresholds": model.thresholds,
        "label_embeddings": embeddings and label_embeddings.summary(*embeddings, datamodule.taxonomy),
        "best_checkpoint": best,
        "best_score": best_score,
        "epochs": epochs,
        "steps": steps,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "num_documents": {split: datamodule.num_documents(split) for split in SPLITS if datamodule.has_split(split)},
        "num_parameters": num_parameters,
        "num_devices": trainer.world_size,
        "precision": trainer.precision,
        "wandb_run_id": wandb_logger and str(wandb_logger.version),
        **environment(model.device),
    }
    if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        write_run(run_dir, datamodule, model, result, wandb_logger)
        if not keep_checkpoints:
            shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)
    return result


def _load_best(trainer: L.Trainer, model: HTCModel) -> tuple[str | None, float | None]:
    """Put the best checkpoint's weights into the model; gives its name and its score, None without one."""
    checkpoint = trainer.checkpoint_callback
    if not isinstance(checkpoint, ModelCheckpoint) or not checkpoint.best_model_path:
        return None, None
    content = torch.load(checkpoint.best_model_path, map_location="cpu", weights_only=True)
    model.load_state_dict(content["state_dict"])
    model.on_load_checkpoint(content)
    assert checkpoint.best_model_score is not None
    return Path(checkpoint.best_model_path).name, checkpoint.best_model_score.item()


def _tune(trainer: L.Trainer, model: HTCModel, datamodule: HTCDataModule) -> None:
    """Put thresholds chosen on validation into the model, and what they reach there into its results."""
    assert model.tune_threshold is not None
    model.val_scores = []
    trainer.validate(model, datamodule, verbose=False)
    gathered = [model.val_scores] * trainer.world_size
    if trainer.world_size > 1:
        torch.distributed.all_gather_object(gathered, model.val_scores)
    model.val_scores = None
    batches = [batch for share in gathered for batch in share]
    probabilities, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    classes = model.val_metrics.classes
    model.thresholds = tune_thresholds(
        probabilities, targets, model.taxonomy, tuning=model.tune_threshold, prune=model.prune, classes=classes
    )
    metrics = HierarchicalMetrics(model.taxonomy, classes=classes)
    metrics.update(model.predict_nodes(probabilities), targets, probabilities)
    model.val_results = metrics.compute().values
    log.info("thresholds, chosen on validation: %s", ", ".join(f"{threshold:g}" for threshold in model.thresholds))
