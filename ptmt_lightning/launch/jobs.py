"""The jobs of a sweep as processes: runs several at once, resumes, limits and ends them with the sweep."""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from filelock import lock_descriptor
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from ptmt_lightning.launch.devices import without_ranks
from ptmt_lightning.launch.errors import JobNotRunError, JobsFailedError
from ptmt_lightning.launch.overrides import config_options, quoted
from ptmt_lightning.launch.program import this_program
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.utils.secrets import mask

log = logging.getLogger(__name__)


@dataclass
class Job:
    """A job of a sweep, and how far it has come."""

    name: str  # shown in messages, tells the job from the others
    overrides: list[str]
    config: DictConfig
    folder: RunFolder
    process: subprocess.Popen[bytes] | None = None
    waits: bool = False  # for another process that works in the folder
    started: float = 0.0  # time.monotonic()
    deadline: float | None = None  # time.monotonic() at which it is told to end or, if it was told already, killed
    timed_out: bool = False
    error: str | None = None
    has_run: bool = False  # to its end, in this sweep or an earlier one; or was refused

    @property
    def is_running(self) -> bool:
        """Whether the job's process has started and not ended yet."""
        return self.process is not None and self.process.poll() is None


class JobQueue:
    """A queue that runs jobs as processes, as many at once as there are slots.

    A job whose folder holds its finished run is not run again; one that was interrupted is resumed. Output goes to
    ``job.log`` in the job's folder, after a line with the job's arguments.

    Args:
        timeout_minutes: time after which a job is told to end, and saves a checkpoint; None for no limit.
        fail_fast: end all jobs when one fails. Otherwise the others continue, and failed jobs are named at the end.
        grace_seconds: time between telling a job to end and killing it.
        group: value of ``run.group`` for jobs that set none.
    """

    def __init__(self, *, timeout_minutes: float | None, fail_fast: bool, grace_seconds: float, group: str) -> None:
        self.timeout_minutes, self.fail_fast = timeout_minutes, fail_fast
        self.grace_seconds, self.group = grace_seconds, group

    def run(self, jobs: Sequence[Job], slots: Sequence[Sequence[dict[str, str]]]) -> None:
        """Run all jobs, and record in each of them how it ended.

        Args:
            jobs: the jobs, in the order in which to start them.
            slots: for each slot, the environment variables that it would give to each of the jobs.
        """
        with self._ending_jobs_on_exit(jobs):
            waiting, running = list(range(len(jobs))), dict[int, Job]()
            while waiting or running:
                running = {slot: job for slot, job in running.items() if not self._has_ended(job)}
                if self.fail_fast and any(job.error for job in jobs):
                    break
                for slot, environments in enumerate(slots):
                    if slot not in running and waiting and self._start(jobs[waiting[0]], environments[waiting[0]]):
                        running[slot] = jobs[waiting.pop(0)]
                time.sleep(0.1)

    def _start(self, job: Job, environment: dict[str, str]) -> bool:
        """Start a job unless it has a result or an error; return False while another process works in its folder."""
        job.folder.path.mkdir(parents=True, exist_ok=True)
        with job.folder.job_log.open("ab") as output:
            # The job's processes inherit the lock with their output: it holds until the last of them has ended, be
            # this process killed or not.
            if not lock_descriptor(output.fileno(), blocking=False):
                if not job.waits:
                    log.info("%s: waiting for another process that has the folder", job.name)
                job.waits = True
                return False
            job.error = _claim(job, output)
            if job.error:
                log.error(job.error)
            elif job.folder.is_finished:
                log.info("%s: has a result already, in %s", job.name, job.folder.path)
            job.has_run = bool(job.error) or job.folder.is_finished
            if job.has_run:
                return True
            log.info("%s: started, output in %s", job.name, job.folder.job_log)
            job.process = subprocess.Popen(
                self._command(job),
                env=without_ranks(os.environ) | environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that its ranks and data loaders can be ended with it
                preexec_fn=_end_with_parent(),
            )
        job.started = time.monotonic()
        job.deadline = None if self.timeout_minutes is None else job.started + 60 * self.timeout_minutes
        return True

    def _command(self, job: Job) -> list[str]:
        program = this_program()
        if job.folder.is_resumable:
            return [*program, f"resume={job.folder.path}"]
        hydra = job.config.hydra
        # Settings of the sweep itself must not reach the job, which would start a sweep of its own.
        hydra_overrides = [o for o in hydra.overrides.hydra if not _key(o).startswith(_SWEEP_SETTINGS)]
        overrides = [o for o in job.overrides if not _key(o).startswith(_SWEEP_SETTINGS)]
        if job.config.run.group is None:
            overrides.append(f"run.group={self.group}")
        folder = f"hydra.run.dir={quoted(str(job.folder.path))}"
        return [*program, *config_options(hydra), *hydra_overrides, *overrides, "hydra.mode=RUN", folder]

    def _has_ended(self, job: Job) -> bool:
        if job.process is None:
            return True
        if job.is_running:
            if job.deadline is not None and time.monotonic() > job.deadline:
                _signal(job.process, signal.SIGKILL if job.timed_out else signal.SIGTERM)
                job.timed_out, job.deadline = True, time.monotonic() + self.grace_seconds
            return False
        job.has_run = True
        took = (time.monotonic() - job.started) / 60
        if job.process.returncode and job.folder.is_finished:  # what comes after the result is tables and pictures
            log.warning(
                "%s: has its result, but ended with exit code %d before all tables and pictures were there, see %s",
                job.name, job.process.returncode, job.folder.job_log,
            )  # fmt: skip
        elif job.process.returncode:
            reason = f"exit code {job.process.returncode}"
            if job.timed_out:
                reason = f"longer than hydra.launcher.timeout_minutes={self.timeout_minutes:g}"
            job.error = f"{job.name}: {reason}, see {job.folder.job_log}: {_last_line(job.folder.job_log)}"
            log.error("failed after %.1f minutes: %s", took, job.error)
        else:
            log.info("%s: done in %.1f minutes, score %s", job.name, took, _score(job.folder))
        return True

    @contextlib.contextmanager
    def _ending_jobs_on_exit(self, jobs: Sequence[Job]) -> Iterator[None]:
        """End jobs that still run when this block is left, be it by an error, by Ctrl-C or by SIGTERM."""

        def end(*_: Any) -> None:
            sys.exit(128 + signal.SIGTERM)

        before = signal.signal(signal.SIGTERM, end)
        try:
            yield
        finally:
            running = [job.process for job in jobs if job.process is not None and job.is_running]
            for process in running:
                _signal(process, signal.SIGTERM)
            limit = time.monotonic() + self.grace_seconds
            for process in running:
                try:
                    process.wait(max(0, limit - time.monotonic()))
                except subprocess.TimeoutExpired:
                    _signal(process, signal.SIGKILL)
                    process.wait()
            signal.signal(signal.SIGTERM, before)


_SWEEP_SETTINGS = ("hydra/launcher", "hydra/sweeper", "hydra.launcher", "hydra.sweeper", "hydra.sweep", "hydra.mode")


def _claim(job: Job, output: BinaryIO) -> str | None:
    """Write the job's arguments as the first line of its log; return an error if those of another job stand there."""
    arguments = mask(f"arguments: {json.dumps(_own_arguments(job))}")
    with job.folder.job_log.open(encoding="utf-8", errors="replace") as file:
        earlier = file.readline().rstrip("\n")
    if not earlier:
        output.write(f"{arguments}\n".encode())
        output.flush()
    elif earlier != arguments:
        return f"{job.name}: {job.folder.path} is of another job ({earlier}); choose another hydra.sweep.subdir"
    return None


def _own_arguments(job: Job) -> list[str]:
    """Return the arguments that decide what a job computes, without those on folders, names and trial reports."""
    ignored = ("hydra.", "hydra/", "run.group", "callbacks.pruning.")
    return [override for override in job.overrides if not _key(override).startswith(ignored)]


def returns(jobs: Sequence[Job]) -> list[JobReturn]:
    """Return for each job what Hydra expects of a launcher: the run's score, or the error that kept it from one."""
    failed = [job.error for job in jobs if job.error]
    not_run = [
        f"{job.name}: ended with the sweep" if job.process else f"{job.name}: not started"
        for job in jobs
        if not job.has_run
    ]
    summary = "\n".join([f"error: {len(failed)} of {len(jobs)} jobs failed:", *failed, *not_run])
    returns = []
    for job in jobs:
        done = job.has_run and not job.error
        returned = JobReturn(
            overrides=job.overrides,
            cfg=job.config,
            hydra_cfg=OmegaConf.create({"hydra": job.config.hydra}),
            working_dir=str(job.folder.path),
            task_name=job.config.hydra.job.name,
            status=JobStatus.COMPLETED if done else JobStatus.FAILED,
        )
        error = JobsFailedError(summary) if job.has_run else JobNotRunError(summary)
        returned.return_value = _score(job.folder) if done else error
        returns.append(returned)
    return returns


def _key(override: str) -> str:
    return OverridesParser.create().parse_override(override).key_or_group


def _score(folder: RunFolder) -> float | None:
    """Return the score of a finished run; None if it left none, as with ``debug=fast_dev_run``."""
    score: float | None = (
        json.loads(folder.result.read_text(encoding="utf-8"))["best_score"] if folder.is_finished else None
    )
    return score


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[1:]
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _signal(process: subprocess.Popen[bytes], signal_: signal.Signals) -> None:
    """Send a signal to a job: SIGKILL to all of its processes, others to its first one, which tells the rest."""
    with contextlib.suppress(ProcessLookupError):
        if signal_ == signal.SIGKILL:
            os.killpg(process.pid, signal_)
        else:
            process.send_signal(signal_)


def _end_with_parent() -> Callable[[], Any] | None:
    """Return what a new process calls on Linux so that it is told to end when its parent dies, even of SIGKILL."""
    if sys.platform != "linux":
        return None
    prctl, set_death_signal = ctypes.CDLL(None).prctl, 1  # looked up here: nothing may be loaded after the fork
    return lambda: prctl(set_death_signal, signal.SIGTERM)
