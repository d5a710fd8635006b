"""The Trainer of a run that is started from Python; ``conf/trainer`` and ``conf/callbacks`` have the same defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from ptmt_lightning.run_folder.curves import mode_of
from ptmt_lightning.run_folder.paths import BEST_CHECKPOINT, RunFolder
from ptmt_lightning.training.callbacks import EpochLog, Throughput, Vitals
from ptmt_lightning.training.checkpoints import LastCheckpoint, WholeCheckpointIO
from ptmt_lightning.training.loggers import RunCSVLogger
from ptmt_lightning.training.quiet import quiet_libraries


def make_trainer(
    run_dir: Path | str,
    *,
    monitor: str = "val/h_f1_macro",
    mode: str | None = None,
    patience: int | None = 10,
    **settings: Any,
) -> L.Trainer:
    """Return a Trainer that keeps the best and the last checkpoint, stops early, and writes curves.

    Args:
        run_dir: the folder of the run, made if it is missing.
        monitor: the metric that decides which checkpoint is best and when to stop.
        mode: ``max`` or ``min``; None for the metric's own direction.
        patience: epochs without gain after which training stops; None never stops early.
        settings: arguments of Lightning's Trainer that replace the defaults here; ``callbacks`` are added.
    """
    quiet_libraries()
    folder = RunFolder(Path(run_dir))
    mode = mode or mode_of(monitor)
    folder.path.mkdir(parents=True, exist_ok=True)
    checkpoints = str(folder.checkpoints)
    callbacks: list[L.Callback] = [
        ModelCheckpoint(
            dirpath=checkpoints, filename=Path(BEST_CHECKPOINT).stem, monitor=monitor, mode=mode,
            enable_version_counter=False,
        ),
        LastCheckpoint(checkpoints),
        Throughput(),
        Vitals(),
        EpochLog(),
        *settings.pop("callbacks", []),
    ]  # fmt: skip
    if patience is not None:
        callbacks.append(EarlyStopping(monitor=monitor, mode=mode, patience=patience, strict=False))
    defaults: dict[str, Any] = {
        "devices": 1,
        "max_epochs": 20,
        "gradient_clip_val": 5.0,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 10,
        "enable_model_summary": False,
        "use_distributed_sampler": False,  # the data module's own sampler serves each rank
        "default_root_dir": run_dir,
        "logger": RunCSVLogger(str(run_dir)),
    }
    plugins = [WholeCheckpointIO(), *settings.pop("plugins", [])]
    return L.Trainer(callbacks=callbacks, plugins=plugins, **defaults | settings)
