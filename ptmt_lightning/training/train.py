"""A whole run: train, choose thresholds, test the best checkpoint, and leave a run folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.data.document import SPLITS
from ptmt_lightning.metrics import HierarchicalMetrics
from ptmt_lightning.models.base import HTCModel
from ptmt_lightning.run_folder import label_embeddings
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.run_folder.result import environment, write_config
from ptmt_lightning.training.advice import advice
from ptmt_lightning.training.artifacts import FinishedRun, Tested, attempt, write_model, write_run
from ptmt_lightning.training.checks import check_run
from ptmt_lightning.training.collectors import PredictionCollector, RunRecord, ScoreCollector, attached
from ptmt_lightning.training.fit_rule import calibration_summary, fit_rule
from ptmt_lightning.training.loggers import RunWandbLogger
from ptmt_lightning.training.quiet import quiet_libraries
from ptmt_lightning.training.resuming import prepare_to_resume
from ptmt_lightning.training.trainer import make_trainer
from ptmt_lightning.utils.secrets import masked

log = logging.getLogger(__name__)


def train(
    *,
    datamodule: HTCDataModule,
    model: HTCModel,
    run_dir: Path | str,
    trainer: L.Trainer | None = None,
    config: Mapping[str, Any] | None = None,
    test: bool = True,
    keep_checkpoints: bool = False,
    resume: bool = False,
    draw: bool = True,
) -> dict[str, Any]:
    """Train a model, test its best checkpoint, and write the run folder.

    Args:
        datamodule: connected to the model, see :func:`~ptmt_lightning.training.build.build`.
        model: the model to train; at the end it has the weights of its best checkpoint.
        run_dir: written to by rank 0; :class:`~ptmt_lightning.run_folder.paths.RunFolder` lists the files.
        trainer: None for :func:`~ptmt_lightning.training.trainer.make_trainer` with its defaults.
        config: every setting of the run, in plain types, for ``config.yaml`` and W&B. Its part ``run`` (names of model,
            backbone, loss, variant) goes into ``result.json`` as it is. None takes the main ones from the objects.
        test: score the test split, if there is one.
        keep_checkpoints: keep checkpoints at the end; otherwise only ``model/`` has the best weights. A run that did
            not end keeps them.
        resume: go on from the newest checkpoint in ``run_dir`` that can be read. The trainer may have another
            ``max_epochs`` or ``max_steps`` than before: the optimiser's state is kept, and the learning rate follows
            the schedule of the new length.
        draw: draw the pictures of the run.

    Returns:
        The content of ``result.json``.

    Raises:
        ValueError: data, model and trainer don't go together; the folder holds another run; or the run is to be
            resumed, but no checkpoint can be read, or the run has reached its new length already.
    """
    quiet_libraries()
    folder = RunFolder(Path(run_dir))
    trainer = trainer or make_trainer(run_dir)
    check_run(trainer, datamodule, model)
    record = RunRecord()
    trainer.callbacks.insert(0, record)  # type: ignore[attr-defined]
    checkpoint = None
    if resume:
        checkpoint = prepare_to_resume(trainer, datamodule, model, folder)
        folder.reopen()
    else:
        folder.check_free()
        folder.clear()  # of a run that was cut off before it had a checkpoint
    config = config or _config(folder, datamodule, model, trainer)
    write_config(folder, masked(dict(config)))
    wandb_logger = next((logger for logger in trainer.loggers if isinstance(logger, RunWandbLogger)), None)
    if wandb_logger:
        wandb_logger.keep_id(folder)
        wandb_logger.log_hyperparams(masked({**config, "dataset_fingerprint": datamodule.fingerprint}))
    if trainer.is_global_zero:
        _log_beginning(trainer, datamodule, model, folder)
    fitted = _fit(trainer, datamodule, model, record, checkpoint)
    if model.tune_threshold or model.calibrate:
        record.val_results = _fit_rule(trainer, model, datamodule)
    elif not record.val_results:  # max_steps came before the first validation
        trainer.validate(model, datamodule, verbose=False)
    writes = trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined]
    if writes:
        write_model(folder, model)
    tested = _test(trainer, model, datamodule) if test and datamodule.has_split("test") else None
    embeddings = model.label_embeddings()
    result = {
        "dataset": datamodule.name,
        "dataset_fingerprint": datamodule.fingerprint,
        "dataset_protocol": datamodule.protocol,
        **config.get("run", {}),
        "seed": model.seed,
        "train_fraction": datamodule.train_fraction,
        "val": record.val_results,
        "test": tested.metrics.values if tested else {},
        "decoding": model.rule.decoding,
        "thresholds": list(model.rule.thresholds),
        "calibration": calibration_summary(model.rule, *(tested.score_counts if tested else (None, None))),
        "label_embeddings": embeddings
        and attempt(
            "label_embeddings of result.json", lambda: label_embeddings.summary(*embeddings, datamodule.taxonomy)
        ),
        "best_checkpoint": fitted.best_checkpoint,
        "best_score": fitted.best_score,
        "epochs": fitted.epochs,
        "steps": fitted.steps,
        "seconds": {"fit": fitted.seconds} | ({"test": tested.seconds} if tested else {}),
        "num_documents": {split: datamodule.num_documents(split) for split in SPLITS if datamodule.has_split(split)},
        "num_parameters": _num_parameters(model),
        "num_devices": trainer.world_size,
        "precision": trainer.precision,
        "backbone_commit": model.backbone.commit,
        "wandb_run_id": wandb_logger and str(wandb_logger.version),
        **environment(model.device),
    }
    if writes:
        write_run(FinishedRun(folder, datamodule, model, result, tested), wandb_logger, draw=draw)
        if not keep_checkpoints:
            folder.remove_checkpoints()
    _hint_at_zero(result, model)
    return result


def _hint_at_zero(result: Mapping[str, Any], model: HTCModel) -> None:
    """Say what to change where nothing that a model predicts is right."""
    scores = result["test"] or result["val"]
    if not scores or any(value for name, value in scores.items() if name != "h_auprc"):
        return
    lower = "" if model.rule.decision.single_label else ", or lower model.threshold (model.tune_threshold=global)"
    log.warning(
        "all scores are 0: no label that the model predicts is right, or it predicts none; train longer "
        "(trainer.max_epochs=%d), raise optimizer.learning_rate%s, and look at predictions.jsonl",
        4 * max(1, result["epochs"]),
        lower,
    )


class _Fitted(NamedTuple):
    """The outcome of training, after which the model has the weights of the best checkpoint."""

    seconds: float
    epochs: int
    steps: int
    best_checkpoint: str | None
    best_score: float | None


def _config(folder: RunFolder, datamodule: HTCDataModule, model: HTCModel, trainer: L.Trainer) -> dict[str, Any]:
    """Return the settings that tell a run from others, where no configuration made it."""
    return {
        "seed": model.seed,
        "run": {
            "dir": str(folder.path.absolute()),
            "model": model.system,
            "backbone": model.backbone.model.name_or_path or "from scratch",
            "loss": type(model.label_loss).__name__.lower(),
            "variant": None,
        },
        "dataset": {
            "name": datamodule.name, "batch_size": datamodule.batch_size, "train_fraction": datamodule.train_fraction,
        },
        "model": _plain(model) | model.rule.to_json(),
        "loss": _plain(model.label_loss),
        "optimizer": asdict(model.optimizer),
        "trainer": {"max_epochs": trainer.max_epochs, "max_steps": trainer.max_steps, "precision": trainer.precision},
    }  # fmt: skip


def _plain(module: torch.nn.Module) -> dict[str, Any]:
    """Return the settings among a module's attributes: public, plain, and none that PyTorch or Lightning put there."""
    others = vars(torch.nn.Module()).keys() | vars(L.LightningModule()).keys()
    plain = (bool, int, float, str, list, dict)
    return {k: v for k, v in vars(module).items() if k not in others and k[0] != "_" and isinstance(v, plain)}


def _log_beginning(trainer: L.Trainer, datamodule: HTCDataModule, model: HTCModel, folder: RunFolder) -> None:
    log.info("run folder: %s", folder.path)
    for logger in trainer.loggers:
        if isinstance(logger, RunWandbLogger) and (address := getattr(logger.experiment, "url", None)):
            log.info("W&B: %s", address)
    log.info(
        "%d training documents, %d labels on %d levels; %.1f million parameters; %d x %s",
        datamodule.num_documents("train"), len(model.taxonomy), model.taxonomy.num_levels, _num_parameters(model) / 1e6,
        trainer.world_size, trainer.strategy.root_device.type,
    )  # fmt: skip
    for line in advice(datamodule, model):
        log.info(line)


def _num_parameters(model: HTCModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _fit(
    trainer: L.Trainer, datamodule: HTCDataModule, model: HTCModel, record: RunRecord, checkpoint: Path | None
) -> _Fitted:
    """Train, then put the best checkpoint's weights into the model, and its scores into the record."""
    record.start()
    trainer.fit(model, datamodule, ckpt_path=checkpoint, weights_only=True)
    epochs: int = trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
    seconds, steps = round(record.fit_seconds, 2), trainer.global_step
    saved = trainer.checkpoint_callback
    if not isinstance(saved, ModelCheckpoint) or not saved.best_model_path:
        return _Fitted(seconds, epochs, steps, None, None)
    content = torch.load(saved.best_model_path, map_location="cpu", weights_only=True)
    model.load_state_dict(content["state_dict"])
    record.on_load_checkpoint(trainer, model, content)
    score = None if saved.best_model_score is None else saved.best_model_score.item()
    return _Fitted(seconds, epochs, steps, Path(saved.best_model_path).name, score)


def _test(trainer: L.Trainer, model: HTCModel, datamodule: HTCDataModule) -> Tested | None:
    started = time.perf_counter()
    with attached(trainer, PredictionCollector()) as collector:
        trainer.test(model, datamodule, verbose=False)
    if collector.metrics is None:  # trainer.limit_test_batches=0
        return None
    seconds = round(time.perf_counter() - started, 2)
    return Tested(collector.metrics, collector.gather(trainer), seconds, collector.gather_uncalibrated(trainer))


def _fit_rule(trainer: L.Trainer, model: HTCModel, datamodule: HTCDataModule) -> dict[str, float]:
    """Let validation choose thresholds and calibration, as settings ask, and return the scores reached there."""
    loggers, trainer.loggers = trainer.loggers, []  # the curves have this checkpoint's validation already
    with attached(trainer, ScoreCollector()) as collector:
        trainer.validate(model, datamodule, verbose=False)
    trainer.loggers = loggers
    logits, targets = collector.gather(trainer)
    classes = model.val_metrics.classes
    model.rule = fit_rule(
        model.rule, logits, targets, tuning=model.tune_threshold, calibrate=model.calibrate, classes=classes
    )
    metrics = HierarchicalMetrics(model.taxonomy, classes=classes)
    probabilities = model.probabilities(logits)
    metrics.update(model.predict_nodes(probabilities), targets, probabilities)
    thresholds = ", ".join(f"{threshold:.4g}" for threshold in model.rule.thresholds)
    log.info("chosen on validation: thresholds %s, calibration %s", thresholds, model.calibrate or "none")
    return metrics.compute().values
