"""Loggers: ``metrics.csv`` in the run's folder, and Weights & Biases with or without a network."""

from __future__ import annotations

import csv
import io
import logging
import os
import re
import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import wandb
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning_utilities.core.rank_zero import rank_zero_only

from ptmt_lightning.run_folder.curves import direction_of
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.utils.files import write_text
from ptmt_lightning.utils.secrets import mask

log = logging.getLogger(__name__)

_LONGEST_NAME = 128  # characters that W&B accepts of a name, a group, a job type, a project


class RunCSVLogger(CSVLogger):
    """Writes ``<save_dir>/metrics.csv``; a resumed run goes on in the same file."""

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="")

    @property
    def experiment(self) -> Any:
        """The writer of ``metrics.csv``; on ranks other than 0, a stand-in that writes nothing."""
        if self._experiment is None and getattr(rank_zero_only, "rank", 0) == 0:
            self._experiment = _AppendingWriter(log_dir=self.save_dir)
        return super().experiment

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Drop the rows from ``step`` on, which a resumed run writes again."""
        path = Path(self.save_dir) / ExperimentWriter.NAME_METRICS_FILE
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                header, *rows = list(csv.reader(file)) or [[]]
            if "step" not in header:  # the run was killed while it wrote the header
                path.unlink()
                return
            at = header.index("step")
            whole = [row for row in rows if len(row) == len(header) and row[at].isdigit()]
            text = io.StringIO(newline="")
            csv.writer(text, lineterminator="\n").writerows([header, *(row for row in whole if int(row[at]) < step)])
            write_text(path, text.getvalue())


class _AppendingWriter(ExperimentWriter):
    def _check_log_dir_exists(self) -> None:
        """Go on under the header of an earlier file, which Lightning's own method would delete."""
        path = Path(self.metrics_file_path)
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])


class RunWandbLogger(WandbLogger):
    """Keeps in W&B's summary the highest point of each validation score and the lowest of each loss.

    Args:
        upload_model: send the files of the trained model, not only their checksums and where they are.
        settings: arguments of :class:`WandbLogger`.
    """

    def __init__(self, *, upload_model: bool, **settings: Any) -> None:
        super().__init__(**settings)
        self.upload_model = upload_model
        self._seen: set[str] = set()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics; before the first value of a metric, tell W&B what its summary is to keep."""
        # By full name: where two patterns fit, such as val/* and Lightning's *, it is open which one W&B takes.
        for name in sorted(metrics.keys() - self._seen):
            if kept := _summary(name):
                self.experiment.define_metric(name, summary=kept, step_metric="trainer/global_step", step_sync=True)
        self._seen |= metrics.keys()
        super().log_metrics(metrics, step)

    @rank_zero_only
    def keep_id(self, folder: RunFolder) -> None:
        """Write down the id of the run, with which it goes on in W&B when it is resumed."""
        folder.wandb.mkdir(exist_ok=True)
        write_text(folder.wandb_run_id, str(self.version))


def _summary(name: str) -> str | None:
    """Return what the summary keeps of a metric: ``min``, ``max``, or None for W&B's default, the last value."""
    return None if name.startswith("test/") else direction_of(name)


def wandb_logger(
    *,
    save_dir: str,
    project: str,
    name: str | None = None,
    group: str | None = None,
    experiment: str | None = None,
    job_type: str | None = None,
    tags: Sequence[str] = (),
    choices: Sequence[str] = (),
    offline: bool = False,
    log_model: bool = False,
) -> RunWandbLogger:
    """Return a W&B logger that never prompts: without a key or a way to the server it works offline, and says so.

    The run's id is kept in ``<save_dir>/wandb/run_id``, so that a resumed run goes on as the same run. An agent of a
    W&B sweep gives its runs their ids.

    Args:
        save_dir: the folder of the run.
        project: the W&B project.
        name: the name of the run in W&B; the middle of a long one is left out, as of group and job type.
        group: the W&B group of the run (default: ``experiment``).
        experiment: the name of the experiment that the run belongs to.
        job_type: the W&B job type of the run.
        tags: tags of the run, each cut to what W&B accepts.
        choices: further tags, such as model and data set; of each tag, what follows its last slash is kept.
        offline: write to the folder only, without asking for the server.
        log_model: send the files of the trained model, not only their checksums and where they are.

    Raises:
        ValueError: W&B takes no project of that name.
    """
    is_first_rank = getattr(rank_zero_only, "rank", 0) == 0
    reason = why_offline() if is_first_rank and not offline and not os.environ.get("WANDB_MODE") else None
    if reason:
        log.warning(
            "W&B runs offline: %s; send the run later with `wandb sync %s/wandb/offline-run-*`", reason, save_dir
        )
    offline = offline or bool(reason)
    folder = RunFolder(Path(save_dir))
    resumed = folder.wandb_run_id.exists() and folder.has_checkpoint
    run_id = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4)
    if resumed:
        run_id = folder.wandb_run_id.read_text(encoding="utf-8")
    if not project or len(project) > _LONGEST_NAME or re.search(r"[/\\#?%:]", project):
        raise ValueError(
            f"logger.wandb.project={project!r}: expected 1 to {_LONGEST_NAME} characters, none of / \\ # ? % :"
        )
    return RunWandbLogger(
        save_dir=save_dir, project=project, name=_shortened(name), group=_shortened(group or experiment),
        job_type=_shortened(job_type), tags=_tags([*choices, *tags]), offline=offline, upload_model=log_model,
        id=run_id,
        # The login check has frozen W&B's settings: the mode that WandbLogger sets for offline=True comes too late.
        mode="offline" if offline else None,
        resume="allow" if resumed else None,
        # W&B records the git state of this code, wherever the run was started.
        # Of what it says itself, the run's address is told in the log; the rest are advertisements.
        settings=wandb.Settings(git_root=str(Path(__file__).parents[1]), silent=True),
    )  # fmt: skip


def _shortened(name: object, limit: int = _LONGEST_NAME) -> str | None:
    """Return a name as W&B accepts it: text of at most ``limit`` characters, its middle left out; None if it is empty.

    Both ends tell runs apart: the first names data set and model, the last what a sweep changes.
    """
    text = "" if name is None else str(name).strip()
    return (text if len(text) <= limit else f"{text[: limit // 2 - 3]}...{text[-limit // 2 :]}") or None


def _tags(names: Iterable[object], limit: int = 64) -> list[str]:
    """Return each tag once, without the folders or the owner before it, and cut to what W&B accepts; no empty ones."""
    tags = (
        mask(str(name)).strip().rstrip("/").rsplit("/", 1)[-1][:limit].strip() for name in names if name is not None
    )
    return [tag for tag in dict.fromkeys(tags) if tag]


def why_offline(timeout: float = 3.0) -> str | None:
    """Return why W&B can't be reached and what would help, or None if it can; never prompt."""
    wandb.setup(wandb.Settings(silent=True))
    if not wandb.login(prompt=False, verify=False):
        return "no API key (set WANDB_API_KEY or run `wandb login`)"
    server = urlparse(wandb.setup().settings.base_url)
    try:
        socket.create_connection((server.hostname, server.port or 443), timeout=timeout).close()
    except OSError as error:
        return f"no connection to {server.hostname} ({error})"
    return None
