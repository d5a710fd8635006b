"""What several test modules share: the command line in a process of its own, servers, and small training runs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import torch
from conftest import ROOT_DIR, datamodule, ptmt_settings, tiny_source
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from warm import warm_python

from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.training.build import build
from ptmt_lightning.training.checkpoints import LastCheckpoint, WholeCheckpointIO
from ptmt_lightning.training.train import train

Server = TypeVar("Server", bound=ThreadingHTTPServer)

FAST = LinearAdamW(learning_rate=5e-3, new_rate_factor=1, weight_decay=0.0, warmup_ratio=0.1)


# ---- the command line ----


def start(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``run.py`` with ``tmp_path`` as working folder, no W&B account and no hub; as a fork of the warm process."""
    return _start(warm_python(), tmp_path, arguments, environment)


def start_afresh(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same in a Python of its own, as users start it: ten seconds of imports."""
    return _start(sys.executable, tmp_path, arguments, environment)


def _start(
    python: str, tmp_path: Path, arguments: tuple[str, ...], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    home = {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")}
    return subprocess.run(
        [python, str(ROOT_DIR / "run.py"), *arguments],
        cwd=tmp_path, env=inherited | home | environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def toy_arguments(toy_folder: Path) -> list[str]:
    """A run of seconds on the toy data."""
    return [
        "dataset=jsonl", f"dataset.path={toy_folder}", "dataset.name=toy", "dataset.batch_size=4", "backbone=tiny",
        "backbone.hidden_size=32", "trainer=cpu", "trainer.max_epochs=2", "trainer.enable_progress_bar=false",
        "callbacks.progress_bar=null", "trainer.log_every_n_steps=2", "keep_checkpoints=true",
    ]  # fmt: skip


def only_run(tmp_path: Path) -> Path:
    """The folder of the only run."""
    [run_dir] = (tmp_path / "outputs/toy/ptmt").iterdir()
    return run_dir


# ---- servers ----


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Let a server answer in a thread for the time of a ``with`` block."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    with server:
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


# ---- training ----


def make(
    folder: Path, tmp_path: Path, *, data: dict[str, Any] | None = None, **settings: Any
) -> tuple[HTCDataModule, PTMT]:
    """Data and a seeded model."""
    L.seed_everything(0, verbose=False)
    module = datamodule(folder, tmp_path, **data or {})
    model = build(module, tiny_source(), partial(PTMT, **ptmt_settings(**settings)))
    assert isinstance(model, PTMT)
    return module, model


def make_trainer(run_dir: Path, **settings: Any) -> L.Trainer:
    """A quiet Trainer on one CPU device, with checkpoints in ``run_dir``."""
    checkpoint = ModelCheckpoint(
        dirpath=run_dir / "checkpoints", filename="best", monitor="val/h_f1_macro", mode="max",
        enable_version_counter=False,
    )  # fmt: skip
    last = LastCheckpoint(str(run_dir / "checkpoints"), every_minutes=1000)
    defaults: dict[str, Any] = {
        "accelerator": "cpu", "devices": 1, "max_epochs": 2, "logger": False, "num_sanity_val_steps": 0,
        "enable_progress_bar": False, "enable_model_summary": False, "use_distributed_sampler": False,
        "gradient_clip_val": 5.0, "default_root_dir": run_dir,
    }  # fmt: skip
    callbacks = [checkpoint, last, *settings.pop("callbacks", [])]
    if settings.get("fast_dev_run"):
        callbacks.remove(checkpoint)
    return L.Trainer(callbacks=callbacks, plugins=[WholeCheckpointIO()], **defaults | settings)


def run(folder: Path, tmp_path: Path, run_dir: Path, **settings: Any) -> tuple[dict[str, Any], PTMT]:
    """A whole run; Trainer settings under ``trainer``, data settings under ``data``, the rest for the model."""
    run_dir.mkdir(exist_ok=True)
    trainer = make_trainer(run_dir, **settings.pop("trainer", {}))
    options = {"resume": settings.pop("resume", False), "keep_checkpoints": settings.pop("keep_checkpoints", True)}
    module, model = make(folder, tmp_path, **settings)
    description = {"model": "ptmt", "backbone": "tiny", "loss": "wasl", "variant": None}
    result = train(
        datamodule=module,
        model=model,
        trainer=trainer,
        run_dir=run_dir,
        config={"run": description},
        **options,
    )
    return result, model


def assert_equal_weights(one: PTMT, two: PTMT) -> None:
    """Bit for bit."""
    weights: dict[str, Tensor] = two.state_dict()
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, weights[name]), name
