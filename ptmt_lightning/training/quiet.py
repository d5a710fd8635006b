"""Silence for what libraries say in a training without a use for anybody."""

from __future__ import annotations

import logging
import warnings


def quiet_libraries() -> None:
    """Silence what libraries say of themselves, about which a user can do nothing."""
    for name in ("lightning.pytorch", "lightning.fabric", "matplotlib", "httpx", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.WARNING)  # advertisements, and what the run's own log says
    for message in (
        ".*LeafSpec",  # Lightning's use of torch
        ".*sync_dist=True",  # what is logged of rank 0 alone is meant so
        ".*does not have many workers",  # num_workers=0 is measured to be the fastest where texts are cached
        ".*number of training batches .* is smaller than the logging interval",
        ".*pkg_resources",
        ".*Checkpoint directory .* exists and is not empty",  # of a run that goes on
        ".*eval mode at the start of training",  # of a frozen backbone, as it should be
        ".*lr_scheduler.step.*before.*optimizer.step",
    ):
        warnings.filterwarnings("ignore", message=message)
