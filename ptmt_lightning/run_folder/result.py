"""The configuration and the environment of a run."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from omegaconf import OmegaConf

from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.utils.files import write_text

_PACKAGES = (
    "ptmt_lightning",
    "torch",
    "lightning",
    "transformers",
    "tokenizers",
    "torchmetrics",
    "hydra-core",
    "scikit-learn",
)


def environment(device: torch.device) -> dict[str, Any]:
    """Return the versions of Python and packages, the git state and the device of this run."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "versions": {"python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in _PACKAGES},
        "git_sha": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain")),
        "device": f"{device.type}: {name}",
        "num_threads": torch.get_num_threads(),
    }


def _git(*arguments: str) -> str | None:
    """Return the output of a git command in the project's checkout, or None if there is no git or no checkout."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@rank_zero_only
def write_config(folder: RunFolder, config: Mapping[str, Any]) -> None:
    """Write the resolved configuration as ``config.yaml``, on rank 0 only."""
    folder.path.mkdir(parents=True, exist_ok=True)
    write_text(folder.config, OmegaConf.to_yaml(OmegaConf.create(dict(config))))
