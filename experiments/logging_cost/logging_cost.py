"""Measures the time that logging to W&B adds to a training step.

The same ten batches are trained on again and again; epochs with and without logging take turns.
"""

import tempfile
import time
from functools import partial

import lightning as L
import numpy as np
import wandb

from ptmt_lightning.backbones import FromScratch
from ptmt_lightning.data.sample import SampleDataModule
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.training.build import build
from ptmt_lightning.training.callbacks import Throughput, Vitals
from ptmt_lightning.training.loggers import wandb_logger

ROUNDS, BATCH_SIZE = 40, 4
EVERY = 10  # steps between two lines of the log (trainer.log_every_n_steps), and steps of an epoch
MINILM = FromScratch(name="6x384", hidden_size=384, num_layers=6, num_heads=12, intermediate_size=1536,
                     vocabulary_size=2000, max_length=128, dropout=0.1)  # fmt: skip
SYSTEM = partial(PTMT, alpha=0.1)  # as with a trained head


class Turns(L.Callback):
    """A callback that turns logging off in every other epoch, and takes the time of all epochs.

    Its ``times`` are milliseconds a step, one pair for each epoch: by the clock, and of the process.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with no times."""
        self.times: list[list[float]] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Turn logging off in epochs with an even number, on in others, and read the clocks."""
        trainer.log_every_n_steps = EVERY * (trainer.current_epoch % 2)  # type: ignore[attr-defined]
        self.times.append([time.perf_counter(), time.process_time()])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the times of the epoch."""
        now = time.perf_counter(), time.process_time()
        self.times[-1] = [(end - start) * 1000 / EVERY for start, end in zip(self.times[-1], now, strict=True)]


with tempfile.TemporaryDirectory() as folder:
    datamodule = SampleDataModule(name="sample", path=f"{folder}/data", batch_size=BATCH_SIZE, cache_dir=f"{folder}/c")
    turns, logger = Turns(), wandb_logger(save_dir=folder, project="logging_cost", offline=True)
    trainer = L.Trainer(
        max_epochs=2 * ROUNDS + 2, overfit_batches=EVERY, limit_val_batches=0, gradient_clip_val=5.0, logger=logger,
        callbacks=[Throughput(), Vitals(), turns], enable_checkpointing=False, enable_progress_bar=False,
        use_distributed_sampler=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(build(datamodule, MINILM, SYSTEM), datamodule)
    wandb.finish()
for name, times in zip(("clock", "process"), np.array(turns.times[2:]).T, strict=True):  # the first two warm up
    without, with_ = times.reshape(-1, 2).T
    low, ratio, high = np.percentile(with_ / without, [25, 50, 75])
    medians = f"{np.median(without):.2f} ms a step without, {np.median(with_):.2f} with"
    print(f"{name}: {medians}; ratio {ratio:.4f}, quartiles {low:.4f} and {high:.4f}")
