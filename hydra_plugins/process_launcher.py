"""The Hydra launcher ``process``: each job of a sweep is a new process, independent of the others.

Lightning starts the ranks of a run with the command line of its own process. In a sweep within one process that would
be the command of the whole sweep, so each rank would run all of it; here it is the command of one job. Separate
processes also keep a job from spoiling the others through what they would share: rank variables, the GPU's memory, a
W&B run, random state.
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
from ptmt_lightning.launch.overrides import mask_file
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.utils.checks import check_range


class ProcessLauncher(Launcher):
    """A launcher that runs jobs as processes, several at once with a share of the devices each.

    A job whose folder holds its finished run is not run again; one that was interrupted is resumed. Output goes to
    ``job.log`` in the job's folder, after a line with the job's arguments.

    Args:
        n_jobs: number of jobs that run at once. GPUs are split evenly; jobs on the CPU share its cores.
        timeout_minutes: time after which a job is told to end, and saves a checkpoint; None for no limit.
        fail_fast: end all jobs when one fails. Otherwise the others continue, and failed jobs are named at the end.
        grace_seconds: time between telling a job to end and killing it.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(self, n_jobs: int, timeout_minutes: float | None, fail_fast: bool, grace_seconds: float) -> None:
        check_range("hydra.launcher.n_jobs", n_jobs, 1, integer=True)
        if timeout_minutes is not None:
            check_range("hydra.launcher.timeout_minutes", timeout_minutes, 0, low_open=True)
        check_range("hydra.launcher.grace_seconds", grace_seconds, 0)
        self.n_jobs, self.timeout_minutes, self.fail_fast = n_jobs, timeout_minutes, fail_fast
        self.grace_seconds = grace_seconds

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what is needed to compose jobs, and name the group of this sweep's runs by the time.

        Args:
            hydra_context: gives the loader that composes the jobs' configurations.
            task_function: not used, as each job is a process that calls it itself.
            config: configuration of the sweep itself.
        """
        self.hydra_context, self.config = hydra_context, config
        self.group = time.strftime("%Y-%m-%d_%H-%M-%S")

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs, and return for each its score, or the error that kept it from one.

        Args:
            job_overrides: the overrides of each job.
            initial_job_idx: number of the first job.

        Raises:
            CompactHydraException: more jobs are to run at once than there are GPUs.
        """
        if (saved := Path(self.config.hydra.sweep.dir, "multirun.yaml")).exists():  # Hydra's copy of all settings
            mask_file(saved)
        shared = set.intersection(*map(set, job_overrides)) if len(job_overrides) > 1 else set()
        jobs = [self._job(number, list(o), shared) for number, o in enumerate(job_overrides, start=initial_job_idx)]
        shares = self.n_jobs > 1  # else devices are not looked for, which would take as long as importing PyTorch
        uses_gpus = [shares and _uses_gpus(job) for job in jobs]
        with compact_errors():
            slots = [
                [share_of_devices(slot, self.n_jobs, uses_gpus=uses) for uses in uses_gpus]
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
        HydraConfig.instance().set_config(config)  # the folder's name is made with resolvers that read it
        folder = Path(config.hydra.sweep.dir, config.hydra.sweep.subdir).absolute()
        HydraConfig.instance().set_config(self.config)
        own = [override for override in filter_overrides(overrides) if override not in shared]
        return Job(" ".join([f"[{folder.name}]", *own]), overrides, config, RunFolder(folder))


def _uses_gpus(job: Job) -> bool:
    return OmegaConf.select(job.config, "trainer.accelerator") != "cpu" and has_gpus()
