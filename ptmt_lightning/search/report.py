"""The report of a search: ``optimization_results.yaml``, ``trials.csv`` and pictures."""

from __future__ import annotations

import logging
import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from omegaconf import OmegaConf
from optuna.trial import TrialState

from ptmt_lightning.run_folder.paths import SEARCH_RESULTS
from ptmt_lightning.search.ranges import edge_of
from ptmt_lightning.search.studies import SharedStudy
from ptmt_lightning.utils.files import write_text
from ptmt_lightning.utils.tables import csv_text

log = logging.getLogger(__name__)


def write_report(shared: SharedStudy, command: Sequence[str]) -> str | None:
    """Write results, trials and pictures of a study to its folder.

    Args:
        shared: the study.
        command: the words of a trial's command, without the settings that are searched.

    Returns:
        The command of the best trial; None if no trial is complete.
    """
    study, folder = shared.study, shared.settings.folder
    with shared.lock:
        results: dict[str, Any] = {
            "name": "optuna", "study": shared.settings.study, "direction": study.direction.name.lower(),
            "sampler": shared.settings.sampler, "trials": shared.states(),
        }  # fmt: skip
        done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
        if done:
            best = study.best_trial
            edges = {key: edge_of(best.distributions[key], value) for key, value in best.params.items()}
            results |= {
                "best_trial": best.number,
                "best_value": best.value,
                "best_params": best.params,
                "at_edge": {key: edge for key, edge in edges.items() if edge},
                "best_folder": str(folder / str(best.number)),
                "command": shlex.join([*command, *(f"{key}={value}" for key, value in best.params.items())]),
            }
            log.info("best of %d: trial %d with %g", len(done), best.number, best.value)
            if best.value == 0 and results["direction"] == "maximize":
                log.warning(
                    "all trials scored 0: no label that their models predict is right, or they predict none; train "
                    "longer (trainer.max_epochs), search higher rates (optimizer.learning_rate), or follow "
                    "monitor=val/h_auprc, which needs no threshold"
                )
        write_text(folder / SEARCH_RESULTS, OmegaConf.to_yaml(OmegaConf.create(results)))
        write_text(folder / "trials.csv", csv_text(study.trials_dataframe()))
        if len(done) > 1:
            _draw(study, folder / "figures")
        return results.get("command")


def _draw(study: optuna.Study, folder: Path) -> None:
    """Draw pictures of a study: its history, the importance of settings, and parallel coordinates."""
    import matplotlib.pyplot as plt  # imported only here: it is slow, and not every start of a search draws pictures
    from optuna.visualization import matplotlib as pictures

    folder.mkdir(exist_ok=True)
    for name in ("optimization_history", "param_importances", "parallel_coordinate"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about few trials, or equal scores
            axes = getattr(pictures, f"plot_{name}")(study)
        axes.figure.savefig(folder / f"{name}.png", dpi=120, bbox_inches="tight")
        plt.close(axes.figure)
