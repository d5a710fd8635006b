"""The names of runs' folders, and what W&B shows beside them."""

from __future__ import annotations

import os
import secrets
from datetime import datetime
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from ptmt_lightning.run_folder.finished import IGNORED_SETTINGS


def run_name() -> str:
    """Of a run's folder: the time, and six characters that keep two runs of one microsecond apart.

    All ranks that torchrun or srun started get the same, and again after a restart.
    """
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")  # several runs in one step
    if "SLURM_STEP_ID" in os.environ and not interactive:
        return f"slurm-{os.environ['SLURM_JOB_ID']}-{os.environ['SLURM_STEP_ID']}"
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}-{secrets.token_hex(3)}"
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        from torch.distributed import TCPStore  # type: ignore[attr-defined]  # takes a second

        store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
        return store.compare_set("ptmt_lightning/run_name", "", name).decode()  # the first rank's
    return name


_UNNAMED = ("dataset=", "model=", "dataset.name", *IGNORED_SETTINGS)  # the first three begin every name


def run_choices() -> str:
    """What was chosen on the command line, as typed, for the name that W&B shows."""
    typed = HydraConfig.get().overrides.task
    return " ".join(argument for argument in typed if not argument.lstrip("+~").startswith(_UNNAMED))


def register_resolvers() -> None:
    """Tell OmegaConf what ``${folder_name:}``, ``${run_name:}`` and ``${run_choices:}`` in ``conf/`` mean."""
    OmegaConf.register_new_resolver("folder_name", lambda path: Path(path).name, replace=True)
    OmegaConf.register_new_resolver("run_name", run_name, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("run_choices", run_choices, replace=True)
