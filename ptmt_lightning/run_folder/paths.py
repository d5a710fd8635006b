"""Where each file of a run's folder is."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only

from ptmt_lightning.utils.files import leftovers_of

LAST_CHECKPOINT, PREVIOUS_CHECKPOINT, BEST_CHECKPOINT = "last.ckpt", "previous.ckpt", "best.ckpt"
SEARCH_RESULTS = "optimization_results.yaml"  # of a search, in the folder that has its trials' folders
LENGTHS = ("trainer.max_epochs", "trainer.max_steps")  # the settings with which an earlier run may go on further


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, be it finished, cut off, or still to be made.

    Args:
        path: the path of the folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """Every setting of the run, resolved; written before training begins."""
        return self.path / "config.yaml"

    @property
    def wandb(self) -> Path:
        """What W&B keeps on this machine."""
        return self.path / "wandb"

    @property
    def wandb_run_id(self) -> Path:
        """The id of the run in W&B."""
        return self.wandb / "run_id"

    @property
    def result(self) -> Path:
        """All metrics, counts, times and versions; written after model and predictions, before tables and pictures."""
        return self.path / "result.json"

    @property
    def metrics(self) -> Path:
        """The curves: training losses by step, validation scores by epoch."""
        return self.path / "metrics.csv"

    @property
    def predictions(self) -> Path:
        """True and predicted paths of each test document."""
        return self.path / "predictions.jsonl"

    @property
    def per_label(self) -> Path:
        """Support, precision, recall and F1 of each label on the test split, the most mistaken labels first."""
        return self.path / "per_label.csv"

    @property
    def mistakes(self) -> Path:
        """Test documents that were predicted wrongly, the worst first, with their texts."""
        return self.path / "mistakes.csv"

    @property
    def reliability(self) -> Path:
        """Table of how often labels are true at each probability, on the test split."""
        return self.path / "reliability.csv"

    @property
    def label_embeddings(self) -> Path:
        """The most similar labels of each label before and after training, and its place on a map."""
        return self.path / "label_embeddings.csv"

    @property
    def figures(self) -> Path:
        """Folder of pictures, drawn from the tables beside it."""
        return self.path / "figures"

    @property
    def model(self) -> Path:
        """Folder of the trained model, ready for use."""
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """The newest checkpoint, from which a run is resumed."""
        return self.checkpoints / LAST_CHECKPOINT

    @property
    def previous_checkpoint(self) -> Path:
        """The checkpoint before the newest, used if the newest is damaged."""
        return self.checkpoints / PREVIOUS_CHECKPOINT

    @property
    def job_log(self) -> Path:
        """Output of a job of a sweep, after a line with the job's arguments."""
        return self.path / "job.log"

    @property
    def is_finished(self) -> bool:
        """Whether the run has left its result, model and predictions; tables and pictures may be missing."""
        return self.result.exists()

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return self.last_checkpoint.exists() or self.previous_checkpoint.exists()

    @property
    def is_resumable(self) -> bool:
        """Whether the run can be resumed: its settings and a checkpoint are there."""
        return self.config.exists() and self.has_checkpoint

    @rank_zero_only
    def check_free(self) -> None:
        """Refuse to be the folder of a new run while it holds another one, whose curves and weights would mix in.

        A run that was cut off before it had a checkpoint to go on from is none, be there a best one already: the same
        command begins it anew.

        Raises:
            ValueError: the folder holds a run that is finished, or one that can go on.
        """
        if self.is_finished or self.has_checkpoint or any(self.model.glob("*")):
            state = "a finished run" if self.is_finished else "a run that was cut off"
            resume = f"go on with resume={self.path}, " if self.has_checkpoint else ""
            raise ValueError(
                f"hydra.run.dir={str(self.path)!r}: holds {state}; give another folder, {resume}or replace it with "
                "overwrite=true"
            )

    @rank_zero_only
    def clear(self) -> None:
        """Remove what a run leaves, and nothing else that may be in the folder.

        Raises:
            ValueError: the folder has files in the places of a run's, but no settings of a run.
        """
        places = (*self._files, self.figures, self.model, self.checkpoints)
        held = [path for path in places if path.is_file() or any(path.glob("*"))]
        if held and not self._is_of_a_run:
            raise ValueError(
                f"hydra.run.dir={str(self.path)!r}: holds {held[0].name}, and no config.yaml of a run; give another "
                "folder, or empty this one"
            )
        for file in self._files:
            file.unlink(missing_ok=True)
        for folder in (self.figures, self.model, self.checkpoints, self.wandb):
            shutil.rmtree(folder, ignore_errors=True)
        self.remove_leftovers()

    @rank_zero_only
    def reopen(self) -> None:
        """Remove the result of a run that goes on: what is written until its end is not of that result."""
        self.result.unlink(missing_ok=True)

    @property
    def _is_of_a_run(self) -> bool:
        try:
            return bool(re.search(r"^run:", self.config.read_text(encoding="utf-8"), re.MULTILINE))
        except (OSError, UnicodeDecodeError):
            return False

    def remove_checkpoints(self) -> None:
        """Remove the checkpoints, all at once: from some of them a run could not go on."""
        removed = self.path / f".{self.checkpoints.name}.{secrets.token_hex(8)}"
        with suppress(OSError):  # there are none, or they stay
            self.checkpoints.rename(removed)
            shutil.rmtree(removed)

    def remove_leftovers(self) -> None:
        """Remove what a killed process left half-written."""
        for file in self._files:
            for path in leftovers_of(file):
                path.unlink()
        for place in (self.model, self.checkpoints):
            for path in self.path.glob(f".{place.name}.*"):
                shutil.rmtree(path)
        for path in self.checkpoints.glob(".*.ckpt"):
            path.unlink()

    @property
    def _files(self) -> tuple[Path, ...]:
        return (
            self.config, self.result, self.metrics, self.predictions, self.per_label, self.mistakes, self.reliability,
            self.label_embeddings,
        )  # fmt: skip


def moved_paths(node: Any, before: str, now: str) -> Any:
    """Return plain content in which the paths of a folder, and of what is in it, are those of another folder.

    Args:
        node: mappings, lists, texts; anything else is returned as it is.
        before: the folder that the paths name.
        now: the folder to name in its place.
    """
    if isinstance(node, dict):
        return {moved_paths(key, before, now): moved_paths(value, before, now) for key, value in node.items()}
    if isinstance(node, list):
        return [moved_paths(value, before, now) for value in node]
    is_below = isinstance(node, str) and (node == before or node.startswith(f"{before}{os.sep}"))
    return now + node.removeprefix(before) if is_below else node
