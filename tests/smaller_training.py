"""A training that a page of the documentation starts, made smaller: ``smaller_training.py ARGUMENTS``."""

from __future__ import annotations

import os
import shlex
import sys

SMALL = [
    "backbone=tiny", "backbone.hidden_size=32", "trainer.max_epochs=1", "trainer.limit_train_batches=2",
    "trainer.limit_val_batches=2", "trainer.limit_test_batches=2",
]  # fmt: skip
QUIET = ["trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "callbacks.progress_bar=null"]
FEWER = {"trainer.devices": "2", "seed": "0", "loss.margin": "0.02,0.05", "hydra.sweeper.n_trials": "2"}


def smaller(arguments: list[str], *, whole: bool) -> list[str]:
    """The arguments of a training that takes seconds; of the tutorial's, all but what is shown on a terminal."""
    if any(argument.startswith(("resume=", "--cfg")) for argument in arguments):
        return arguments
    pairs = [argument.partition("=") for argument in arguments]
    kept = [f"{key}={FEWER.get(key, value)}" if value else key for key, _, value in pairs]
    if whole:
        return [*kept, *QUIET]
    named = any(argument.startswith("backbone.name=") for argument in arguments)
    small = SMALL[2:] if named else [entry for entry in SMALL if entry not in kept]
    if any(argument.startswith("search=") or "hydra/sweeper" in argument for argument in arguments):
        small += ["hydra.sweeper.n_trials=2", "hydra.sweeper.sampler=random"]
    keys = {argument.partition("=")[0] for argument in kept}
    return [*kept, *(entry for entry in [*small, *QUIET] if entry.partition("=")[0] not in keys)]


if __name__ == "__main__":
    typed = [argument.replace("resume=RUN", f"resume={os.environ['CUT_OFF']}") for argument in sys.argv[1:]]
    program = ["-m", "ptmt_lightning.cli", "train", *smaller(typed, whole=os.environ["WHOLE"] == "1")]
    print("+", shlex.join(program), flush=True)
    os.execv(os.environ["WARM"], [os.environ["WARM"], *program])
