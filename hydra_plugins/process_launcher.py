"""Hydra launcher ``process``: each job of a sweep is a fresh process that knows nothing of the others.

Lightning starts the ranks of a run with the command line of the process that it is in. Under ``-m`` that is the whole
sweep, so each rank would run a sweep of its own; a process with one job's command line can't. Nor can jobs then share
anything that one of them breaks: rank variables, the GPU's memory, a W&B run, random state.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from ptmt_lightning.launch.devices import has_gpus, share_of_devices
from ptmt_lightning.launch.errors import compact_errors
from ptmt_lightning.launch.jobs import Job, JobQueue, returns
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.utils.checks import check_range


class ProcessLauncher(Launcher):
    """Runs jobs as processes, several at once with a slot of the devices each.

    A job whose folder holds its finished run is not run again; one that was cut off is resumed. Output goes to
    ``job.log`` in the job's folder, after a line with the job's arguments.

    Args:
        n_jobs: at once. GPUs are split evenly; jobs on the CPU share its cores.
        timeout_minutes: after which a job is told to end; it saves a checkpoint first.
        fail_fast: end all jobs when one fails; else the others go on, and those that failed are named at the end.
        grace_seconds: between telling a job to end and killing it.
    """

    def __init__(self, n_jobs: int, timeout_minutes: float | None, fail_fast: bool, grace_seconds: float) -> None:
        check_range("hydra.launcher.n_jobs", n_jobs, 1, integer=True)
        if timeout_minutes is not None:
            check_range("hydra.launcher.timeout_minutes", timeout_minutes, 0)
        check_range("hydra.launcher.grace_seconds", grace_seconds, 0)
        self.n_jobs, self.timeout_minutes, self.fail_fast = n_jobs, timeout_minutes, fail_fast
        self.grace_seconds = grace_seconds

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.group = time.strftime("%Y-%m-%d_%H-%M-%S")

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; gives what each returned, or why it failed or was not run."""
        shared = set.intersection(*map(set, job_overrides)) if len(job_overrides) > 1 else set()
        jobs = [self._job(number, list(o), shared) for number, o in enumerate(job_overrides, start=initial_job_idx)]
        with compact_errors():
            slots = [
                [share_of_devices(slot, self.n_jobs, uses_gpus=_uses_gpus(job)) for job in jobs]
                for slot in range(self.n_jobs)
            ]
        JobQueue(
            timeout_minutes=self.timeout_minutes, fail_fast=self.fail_fast, grace_seconds=self.grace_seconds,
            group=self.group,
        ).run(jobs, slots)  # fmt: skip
        return returns(jobs)

    def _job(self, number: int, overrides: list[str], shared: set[str]) -> Job:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        HydraConfig.instance().set_config(config)  # for what the folder's name refers to
        folder = Path(config.hydra.sweep.dir, config.hydra.sweep.subdir).absolute()
        HydraConfig.instance().set_config(self.config)
        own = [override for override in filter_overrides(overrides) if override not in shared]
        return Job(" ".join([f"[{folder.name}]", *own]), overrides, config, RunFolder(folder))


def _uses_gpus(job: Job) -> bool:
    return OmegaConf.select(job.config, "trainer.accelerator") != "cpu" and has_gpus()
