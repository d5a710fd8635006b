"""Checks that refuse a run before it has begun."""

from __future__ import annotations

import difflib
import inspect
from functools import partial

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.metrics import HierarchicalMetrics
from ptmt_lightning.models.base import HTCModel
from ptmt_lightning.run_folder.curves import mode_of
from ptmt_lightning.taxonomy import Taxonomy


def check_settings(build_model: object) -> None:
    """Refuse settings that the system does not have, such as those of an experiment made for another system.

    Raises:
        ValueError: a setting is unknown; the message names it.
    """
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
    """Refuse numbers of devices and strategies that a run can't work with.

    Raises:
        ValueError: one of them does not fit; the message says what to set instead.
    """
    datamodule.device_batch_size(trainer.world_size)
    if isinstance(trainer.strategy, (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)):
        # Backbones read parts of layers and of matrices, of which a shard has others, or none.
        raise ValueError(
            f"trainer.strategy={type(trainer.strategy).__name__}: expected one that keeps the model whole on each "
            "device; set trainer=ddp"
        )


def check_batches(trainer: L.Trainer, datamodule: HTCDataModule) -> None:
    """Refuse limits that leave an epoch without a batch or a validation, and more devices than documents.

    Raises:
        ValueError: says which setting, and how many batches there are.
    """
    for split, limit in (
        ("train", trainer.limit_train_batches), ("val", trainer.limit_val_batches), ("test", trainer.limit_test_batches)
    ):  # fmt: skip
        if not datamodule.has_split(split):
            continue
        num_batches = datamodule.num_batches(split, trainer.world_size)
        if split == "train" and limit == 0:
            raise ValueError("trainer.limit_train_batches=0: expected some training; leave it out")
        if isinstance(limit, float) and limit > 0 and int(num_batches * limit) < 1:
            raise ValueError(
                f"trainer.limit_{split}_batches={limit:g}: expected at least one batch, and {limit:g} of {num_batches} "
                "is none; set a number of batches, or a larger share"
            )
        every = trainer.val_check_interval
        if split == "train" and trainer.check_val_every_n_epoch is not None and isinstance(every, int):
            num_batches = min(num_batches, limit) if isinstance(limit, int) else int(num_batches * limit)
            if every > num_batches:
                raise ValueError(
                    f"trainer.val_check_interval={every}: expected at most the {num_batches} batches of an epoch; "
                    "lower it, or set trainer.check_val_every_n_epoch=null to count over epochs"
                )


def validation_scores(taxonomy: Taxonomy) -> list[str]:
    """Return the names of all scores of a validation, such as ``val/h_f1_macro``."""
    metrics = HierarchicalMetrics(taxonomy)
    none = torch.zeros(0, len(taxonomy))
    metrics.update(none.bool(), none.bool(), none)
    return [f"val/{name}" for name in metrics.compute().values]


def check_monitor(monitor: str, model: HTCModel, mode: str | None = None) -> None:
    """Refuse a misspelt metric, or one that is to be followed in the wrong direction, before the first epoch.

    Raises:
        ValueError: there is no such metric, and which is the nearest; or ``mode`` is not the metric's.
    """
    known = ["val/label_loss", *validation_scores(model.taxonomy)]
    if monitor not in known and not monitor.startswith("train/"):
        near = difflib.get_close_matches(monitor, known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"monitor={monitor!r}: no such metric{hint} Known: {', '.join(known)}")
    better = mode_of(monitor)
    if mode not in (None, better):
        raise ValueError(
            f"mode={mode!r} with monitor={monitor!r}: expected {better!r}, or the worst checkpoint would be kept; "
            "leave mode out, which follows monitor"
        )


def check_run(trainer: L.Trainer, datamodule: HTCDataModule, model: HTCModel) -> None:
    """Refuse, before a run begins, what would end it later: see the other checks of this module.

    Raises:
        ValueError: says what to set instead.
    """
    if not datamodule.is_connected:
        raise ValueError("the data are not connected to a model; make it with ptmt_lightning.training.build.build")
    check_trainer(trainer, datamodule)
    if trainer.limit_val_batches == 0:
        raise ValueError(
            "trainer.limit_val_batches=0: expected some validation, which chooses the best checkpoint; leave it out"
        )
    check_batches(trainer, datamodule)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, (ModelCheckpoint, EarlyStopping)) and callback.monitor is not None:
            check_monitor(callback.monitor, model, callback.mode)
