"""The environment variables of a sweep's job: its share of the devices, and none about the sweep's own rank."""

from __future__ import annotations

import os
from collections.abc import Mapping

# Variables by which torchrun, SLURM, MPI and Lightning tell a process its rank.
_RANK_VARIABLES = {
    "WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_RANK",
    "ROLE_WORLD_SIZE", "ROLE_NAME", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED",
    "PL_SEED_WORKERS",
}  # fmt: skip
_RANK_PREFIXES = ("TORCHELASTIC_", "SLURM_", "PMI_", "PMIX_", "OMPI_", "MV2_")


def has_gpus() -> bool:
    """Return whether PyTorch finds a GPU."""
    import torch  # imported only here, so that a sweep on CPUs starts without it

    return torch.cuda.device_count() > 0


def share_of_devices(slot: int, num_slots: int, *, uses_gpus: bool) -> dict[str, str]:
    """Return the environment variables that give one of several slots its share of the GPUs, or of CPU threads.

    Args:
        slot: number of the slot, counted from 0.
        num_slots: number of jobs that run at the same time.
        uses_gpus: whether the job runs on GPUs.

    Raises:
        ValueError: there are more slots than GPUs.
    """
    if num_slots == 1:
        return {}
    import torch

    if not uses_gpus:
        return {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // num_slots))}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    share = len(gpus) // num_slots
    if not share:
        raise ValueError(
            f"hydra.launcher.n_jobs={num_slots}: expected at most as many as there are GPUs, {len(gpus)}; lower it"
        )
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus[slot * share : (slot + 1) * share])}


def without_ranks(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without variables about ranks, for a process that is to start ranks of its own."""
    return {
        name: value
        for name, value in environment.items()
        if name not in _RANK_VARIABLES and not name.startswith(_RANK_PREFIXES)
    }
