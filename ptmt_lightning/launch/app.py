"""The program behind ``python run.py`` and ``ptmt train``: checks arguments, lets Hydra compose settings, runs a task.

Training code is imported only after the arguments are known to be valid, so that mistakes are reported at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ptmt_lightning.launch.checks import check_multirun, check_overrides
from ptmt_lightning.launch.conf import conf_folder
from ptmt_lightning.launch.overrides import arguments_for_hydra
from ptmt_lightning.launch.run_name import register_resolvers
from ptmt_lightning.utils.errors import WRONG_CALL, reported_errors
from ptmt_lightning.utils.secrets import mask_logs
from ptmt_lightning.utils.streams import show_any_text

register_resolvers()  # at import: on a cluster, a job composes its settings in a process that never calls main()


def main() -> None:
    """Train and test the configuration that ``sys.argv`` describes, or start a sweep or a search over it.

    Raises:
        SystemExit: with code 2 and one line after a wrong argument, 1 if a run failed, 130 after Ctrl-C.
    """
    show_any_text()
    mask_logs()
    with reported_errors(code=WRONG_CALL):
        sys.argv = [sys.argv[0], *arguments_for_hydra(sys.argv[1:])]
        check_overrides(sys.argv[1:])
        check_multirun(sys.argv[1:])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands errors on instead of reporting them in its own way
    with reported_errors():
        _run()


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
def _run(config: DictConfig) -> float | None:
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    # Imported late, as they import PyTorch and Lightning.
    if OmegaConf.select(config, "model._target_") == "ptmt_lightning.models.tfidf.TfidfClassifier":
        from ptmt_lightning.launch.tfidf_task import run_tfidf_task

        return run_tfidf_task(config, run_dir)
    from ptmt_lightning.launch.task import run_task

    return run_task(config, run_dir)
