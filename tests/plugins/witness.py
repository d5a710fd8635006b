"""What each rank of a run was told, for the tests of searches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning as L


class Witness(L.Callback):
    """Writes ``rank-N.json`` at the end of training."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        told = {
            "learning_rate": pl_module.optimizer.learning_rate,
            "gamma_neg": pl_module.label_loss.gamma_neg,
            "epochs": trainer.current_epoch,
        }
        (self.folder / f"rank-{trainer.global_rank}.json").write_text(json.dumps(told))
