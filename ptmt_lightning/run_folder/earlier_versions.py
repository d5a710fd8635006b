"""Names in the configurations of earlier versions' runs, and what they are called now."""

from __future__ import annotations

from typing import Any

# Old and new names of modules and classes that runs of version 0.1 name in their config.yaml.
_MOVED = {
    "ptmt_lightning.callbacks": "ptmt_lightning.training.callbacks",
    "ptmt_lightning.checkpoints": "ptmt_lightning.training.checkpoints",
    "ptmt_lightning.loggers": "ptmt_lightning.training.loggers",
    "ptmt_lightning.data.amazon": "ptmt_lightning.data.benchmarks.amazon",
    "ptmt_lightning.data.bgc": "ptmt_lightning.data.benchmarks.bgc",
    "ptmt_lightning.data.bugs": "ptmt_lightning.data.benchmarks.bugs",
    "ptmt_lightning.data.wos": "ptmt_lightning.data.benchmarks.wos",
    "ptmt_lightning.data.datamodule.SampleDataModule": "ptmt_lightning.data.sample.SampleDataModule",
    "ptmt_lightning.models.ptmt.PTMT": "ptmt_lightning.models.ptmt.module.PTMT",
}


def with_new_places(node: Any) -> Any:
    """Return a configuration, plain types, in which each ``_target_`` names its place in this version."""
    if isinstance(node, list):
        return [with_new_places(value) for value in node]
    if not isinstance(node, dict):
        return node
    moved = {key: with_new_places(value) for key, value in node.items()}
    if isinstance(target := moved.get("_target_"), str):
        module, _, name = target.rpartition(".")
        moved["_target_"] = _MOVED.get(target) or (f"{_MOVED[module]}.{name}" if module in _MOVED else target)
    return moved
