"""Loggers: metrics.csv in the run's folder, and Weights & Biases with or without a network."""

from __future__ import annotations

import csv
import io
import logging
import os
import secrets
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import wandb
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning_utilities.core.rank_zero import rank_zero_only

from ptmt_lightning.files import write_text

log = logging.getLogger(__name__)


class RunCSVLogger(CSVLogger):
    """Writes ``<save_dir>/metrics.csv``; a resumed run goes on in the same file."""

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="")

    @property
    def experiment(self) -> Any:
        if self._experiment is None and getattr(rank_zero_only, "rank", 0) == 0:
            self._experiment = _AppendingWriter(log_dir=self.save_dir)
        return super().experiment

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Drop the rows from ``step`` on: a resumed run writes them again."""
        path = Path(self.save_dir) / ExperimentWriter.NAME_METRICS_FILE
        if path.exists():
            with path.open(newline="") as file:
                header, *rows = list(csv.reader(file)) or [[]]
            if "step" not in header:  # killed while it was written
                path.unlink()
                return
            at = header.index("step")
            whole = [row for row in rows if len(row) == len(header) and row[at].isdigit()]
            text = io.StringIO(newline="")
            csv.writer(text, lineterminator="\n").writerows([header, *(row for row in whole if int(row[at]) < step)])
            write_text(path, text.getvalue())


class _AppendingWriter(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        """Lightning's own deletes an earlier file here; this one goes on under its header."""
        path = Path(self.metrics_file_path)
        if path.exists():
            with path.open(newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])


def wandb_logger(
    *, save_dir: str, project: str, group: str | None = None, tags: list[str] | None = None, offline: bool = False
) -> WandbLogger:
    """A W&B logger that never prompts: with no key or no way to the server it works offline, and says so.

    The run's id is kept in ``<save_dir>/wandb/run_id``, so that a resumed run goes on as the same run. An agent of a
    W&B sweep gives its runs their ids.
    """
    reason = None if offline or os.environ.get("WANDB_MODE") else why_offline()
    if reason:
        log.warning(
            "W&B runs offline: %s; send the run later with `wandb sync %s/wandb/offline-run-*`", reason, save_dir
        )
    offline = offline or bool(reason)
    # The login check has frozen W&B's settings: the mode that WandbLogger sets for offline=True comes too late.
    mode = "offline" if offline else None
    file = Path(save_dir) / "wandb" / "run_id"
    resumed = file.exists()
    run_id = file.read_text() if resumed else os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
    if not resumed and getattr(rank_zero_only, "rank", 0) == 0:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, run_id)
    return WandbLogger(
        save_dir=save_dir, project=project, group=group, tags=tags, offline=offline, mode=mode, id=run_id,
        resume="allow" if resumed else None,
    )  # fmt: skip


def why_offline(timeout: float = 3.0) -> str | None:
    """Why W&B can't be reached, and what would help; None where it can. Never prompts."""
    if not wandb.login(prompt=False, verify=False):
        return "no API key (set WANDB_API_KEY or run `wandb login`)"
    server = urlparse(wandb.setup().settings.base_url)
    try:
        socket.create_connection((server.hostname, server.port or 443), timeout=timeout).close()
    except OSError as error:
        return f"no connection to {server.hostname} ({error})"
    return None
