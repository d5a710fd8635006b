"""The configuration and the environment of a run, and its scores on the terminal."""

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
from rich.console import Console
from rich.table import Table

from ptmt_lightning.utils.files import write_text

_PACKAGES = (
    "ptmt_lightning",
    "torch",
    "lightning",
    "transformers",
    "tokenizers",
    "datasets",
    "torchmetrics",
    "hydra-core",
)


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, git state and device of this run."""
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
    """Output of a git command in the project's checkout; None where there is no git or no checkout."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@rank_zero_only
def write_config(run_dir: Path, config: Mapping[str, Any]) -> None:
    """Write the resolved configuration as ``config.yaml``."""
    write_text(run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))


@rank_zero_only
def show(result: Mapping[str, Any], run_dir: Path) -> None:
    """Print the main metrics and the folder of a finished run."""
    table = Table(title=f"{result['dataset']} / {result['model']}", title_justify="left")
    table.add_column("metric")
    splits = [split for split in ("val", "test") if result[split]]
    for split in splits:
        table.add_column(split, justify="right")
    for name in result["val"]:
        table.add_row(name, *(f"{result[split][name]:.4f}" for split in splits))
    console = Console()
    console.print(table)
    console.print(f"run: {run_dir}", soft_wrap=True, highlight=False)
