"""The program behind ``python run.py`` and ``ptmt train``: checks arguments, lets Hydra compose settings, runs a task.

Training code is imported only after the arguments are known to be valid, so that mistakes are reported at once.
"""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from ptmt_lightning.launch.checks import check_multirun, check_overrides
from ptmt_lightning.launch.conf import conf_folder
from ptmt_lightning.launch.errors import user_errors
from ptmt_lightning.launch.overrides import arguments_for_hydra
from ptmt_lightning.launch.run_name import register_resolvers
from ptmt_lightning.utils.streams import show_any_text

register_resolvers()  # at import: on a cluster, a job composes its settings in a process that never calls main()


def main() -> None:
    """Train and test the configuration that ``sys.argv`` describes, or start a sweep or a search over it.

    Raises:
        SystemExit: the arguments or the settings have a mistake that the user can fix; its message is one line.
    """
    show_any_text()
    sys.argv = [sys.argv[0], *arguments_for_hydra(sys.argv[1:])]
    with user_errors():
        check_overrides(sys.argv[1:])
        check_multirun(sys.argv[1:])
    _run()


@hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name="config")
def _run(config: DictConfig) -> float | None:
    from ptmt_lightning.launch.task import run_task  # imported late, as it imports PyTorch and Lightning

    return run_task(config, Path(HydraConfig.get().runtime.output_dir))
