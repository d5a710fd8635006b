"""The names of run folders, and what W&B shows as a part of a run's name."""

from __future__ import annotations

import os
import secrets
from datetime import datetime
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from ptmt_lightning.data.tables.options import name_of
from ptmt_lightning.run_folder.curves import mode_of
from ptmt_lightning.run_folder.finished import IGNORED_SETTINGS
from ptmt_lightning.utils.secrets import mask


def run_name() -> str:
    """Return a new name for a run's folder: the time, and six characters that tell runs of one microsecond apart.

    Under SLURM it is made of the numbers of job and step. All ranks that torchrun or srun starts get the same name,
    also after a restart.
    """
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")  # one step may start several runs
    if "SLURM_STEP_ID" in os.environ and not interactive:
        return f"slurm-{os.environ['SLURM_JOB_ID']}-{os.environ['SLURM_STEP_ID']}"
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}-{secrets.token_hex(3)}"
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        from torch.distributed import TCPStore  # type: ignore[attr-defined]  # the import takes a second

        store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
        return store.compare_set("ptmt_lightning/run_name", "", name).decode()  # the name of the rank that came first
    return name


# Beginnings of arguments that a run's name in W&B leaves out; what the first three choose begins every name anyway.
_NOT_SHOWN = ("dataset=", "model=", "dataset.name", *IGNORED_SETTINGS)


def run_choices() -> str:
    """Return the arguments that decide what is learnt, as the user typed them, for the run's name in W&B."""
    typed = HydraConfig.get().overrides.task
    return " ".join(argument for argument in typed if not argument.lstrip("+~").startswith(_NOT_SHOWN))


def register_resolvers() -> None:
    """Register the resolvers that ``conf/`` uses, such as ``${run_name:}``, with OmegaConf."""
    OmegaConf.register_new_resolver("folder_name", lambda path: Path(mask(path)).name, replace=True)
    OmegaConf.register_new_resolver("table_name", lambda path: name_of(mask(path)), replace=True)
    OmegaConf.register_new_resolver("direction_of", mode_of, replace=True)
    OmegaConf.register_new_resolver("run_name", run_name, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("run_choices", run_choices, replace=True)
