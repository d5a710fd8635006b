"""The task function that ``run.py`` calls: train, test on the best checkpoint, leave a run folder."""

from __future__ import annotations

import difflib
import inspect
import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import lightning as L
import pandas as pd
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from transformers import PreTrainedTokenizerBase

from ptmt_lightning.backbones import Backbone
from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.data.document import SPLITS
from ptmt_lightning.loggers import RunCSVLogger, RunWandbLogger
from ptmt_lightning.metrics import HierarchicalMetrics, per_label, reliability
from ptmt_lightning.models.base import HTCModel
from ptmt_lightning.run_folder import figures, label_embeddings
from ptmt_lightning.run_folder.checkpoint_files import newest, remove_leftovers
from ptmt_lightning.run_folder.mistakes import wrong_predictions
from ptmt_lightning.run_folder.model_card import model_card
from ptmt_lightning.run_folder.predictions import write_predictions
from ptmt_lightning.run_folder.result import environment
from ptmt_lightning.thresholds import tune_thresholds
from ptmt_lightning.utils.files import write_json, write_text
from ptmt_lightning.wandb_run import log_finished

log = logging.getLogger(__name__)


class BackboneSource(Protocol):
    """Opens a backbone; may make its vocabulary from the training texts."""

    def load(self, texts: Iterable[str]) -> tuple[Backbone, PreTrainedTokenizerBase, int]: ...


class BuildModel(Protocol):
    """A system's class with all of its own settings filled in."""

    def __call__(self, **shared: Any) -> HTCModel: ...


def build(
    datamodule: HTCDataModule, backbone: BackboneSource, build_model: BuildModel, *, compile_backbone: bool = False
) -> HTCModel:
    """Make the model for the taxonomy of the data, and tell the data how the model cuts and batches texts.

    Raises:
        ValueError: the data, the backbone or a setting is not usable; says which and what to do.
    """
    _check_settings(build_model)
    datamodule.prepare_data()
    encoder, tokenizer, max_length = backbone.load(datamodule.texts("train"))
    model = build_model(taxonomy=datamodule.taxonomy, backbone=encoder, tokenizer=tokenizer, max_length=max_length)
    datamodule.connect(
        tokenizer=tokenizer,
        max_tokens=max_length,
        train_collator=model.collator(training=True, pad_to_multiple_of=datamodule.pad_to_multiple_of),
        eval_collator=model.collator(training=False, pad_to_multiple_of=datamodule.pad_to_multiple_of),
    )
    # Once on nothing: settings that don't fit the taxonomy are refused here, not at the first step.
    nothing = torch.zeros(1, len(model.taxonomy))
    model.label_loss(nothing, nothing.bool(), model.taxonomy.level_sizes)
    if model.label_loss.single_label:
        most, document_id, level = datamodule.most_labels_at_a_level("train")
        if most > 1:
            raise ValueError(
                f"loss={type(model.label_loss).__name__} expects at most one label a level; document {document_id} has "
                f"{most} on level {level}; set loss=wasl or loss=bce"
            )
    if compile_backbone:
        model.backbone.compile_passes()
    return model


def _check_settings(build_model: BuildModel) -> None:
    """Refuse settings of another system, as an experiment made for one may bring them."""
    if isinstance(build_model, partial) and isinstance(build_model.func, type):
        constructors = [vars(base)["__init__"] for base in build_model.func.__mro__ if "__init__" in vars(base)]
        known = {name for constructor in constructors for name in inspect.signature(constructor).parameters}
        for name in build_model.keywords:
            if name not in known:
                raise ValueError(
                    f"model.{name}: {build_model.func.__name__} has no such setting; leave out the experiment or the "
                    "argument that sets it, or choose the model that it is made for"
                )


def check_trainer(trainer: L.Trainer, datamodule: HTCDataModule) -> None:
    """Refuse devices and strategies that the run can't work with, before it has begun.

    Raises:
        ValueError: says what to set instead.
    """
    datamodule.device_batch_size(trainer.world_size)
    if isinstance(trainer.strategy, (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)):
        # Backbones read parts of layers and of matrices, of which a shard has others, or none.
        raise ValueError(
            f"trainer.strategy={type(trainer.strategy).__name__}: expected one that keeps the model whole on each "
            "device; set trainer=ddp"
        )


def check_monitor(monitor: str, model: HTCModel) -> None:
    """Refuse a misspelt metric before the first epoch, at whose end it would be missed.

    Raises:
        ValueError: names the nearest one.
    """
    metrics = HierarchicalMetrics(model.taxonomy)
    none = torch.zeros(0, len(model.taxonomy))
    metrics.update(none.bool(), none.bool(), none)
    known = ["val/label_loss", *(f"val/{name}" for name in metrics.compute().values)]
    if monitor not in known and not monitor.startswith("train/"):
        [near] = difflib.get_close_matches(monitor, known, n=1, cutoff=0)
        raise ValueError(f"monitor={monitor!r}: no such metric; did you mean {near!r}? Known: {', '.join(known)}")


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
        _write(run_dir, datamodule, model, result, wandb_logger)
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


def _write(
    run_dir: Path,
    datamodule: HTCDataModule,
    model: HTCModel,
    result: Mapping[str, Any],
    wandb_logger: RunWandbLogger | None,
) -> None:
    tables = {}  # for W&B
    if model.test_results:
        ids = datamodule.document_ids("test", [prediction.row for prediction in model.test_predictions])
        write_predictions(run_dir / "predictions.jsonl", model.test_predictions, ids, datamodule.taxonomy)
        table = pd.DataFrame(per_label(datamodule.taxonomy, model.test_counts))
        write_text(run_dir / "per_label.csv", table.to_csv(index=False))
        write_text(run_dir / "reliability.csv", pd.DataFrame(reliability(model.test_scored)).to_csv(index=False))
        tables["test/per_label"] = table
        if wandb_logger:
            wrong = wrong_predictions(model.test_predictions, ids, datamodule.texts("test"), datamodule.taxonomy)
            tables["test/wrong_predictions"] = wrong
    if embeddings := model.label_embeddings():
        table = label_embeddings.table(*embeddings, datamodule.taxonomy)
        write_text(run_dir / "label_embeddings.csv", table.to_csv(index=False))
        tables["label_embeddings"] = table
    figures.draw(run_dir)
    with tempfile.TemporaryDirectory(prefix=".model.", dir=run_dir) as temporary:
        folder = Path(temporary) / "model"
        model.save_pretrained(folder)
        write_text(folder / "README.md", model_card(result, datamodule.taxonomy))
        shutil.rmtree(run_dir / "model", ignore_errors=True)
        folder.rename(run_dir / "model")
    write_json(run_dir / "result.json", result)  # last: a folder with it is complete
    if wandb_logger:
        log_finished(wandb_logger, run_dir, result, tables, datamodule.split_ids())
