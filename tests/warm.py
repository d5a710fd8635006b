"""A Python whose imports lie behind it: programs start as forks of one warm process, in the time of their own work.

`warm_python()` is a file to start programs with in place of ``sys.executable``. It takes ``FILE ARGUMENTS`` and
``-m MODULE ARGUMENTS``, has the warm process of this test session fork, hands on signals, and ends as the fork ends.
A program that runs so finds the same file as its ``sys.executable``: the ranks and jobs that it starts are warm, too.
Whatever a fork can't be given (other options, other values of variables that are read at imports) starts afresh.

As a script, this file is the warm process.
"""

from __future__ import annotations

import atexit
import codecs
import gc
import importlib
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import types
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from warm_ask import receive, send

ROOT_DIR = Path(__file__).parents[1]
Temporary = list[tempfile.TemporaryDirectory[str]]

# Names of variables that are read when Python starts or a library is imported.
READ_AT_IMPORT = (
    "ATEN_", "CUDA_", "HF_", "LANG", "LC_", "LD_", "MKL_", "MPL", "OMP_", "PYTHON", "TORCH", "TRANSFORMERS_",
)  # fmt: skip
READ_LATER = ("PYTHONIOENCODING", "PYTHONPATH", "TORCHELASTIC_", "TORCH_NCCL_")

MODULES = (
    "lightning.pytorch.loggers", "matplotlib.backends.backend_agg", "matplotlib.pyplot", "optuna", "pandas",
    "pyarrow.parquet", "sklearn.decomposition", "torch._dynamo", "torch.distributed", "wandb",
    "transformers.models.bert.modeling_bert", "ptmt_lightning.cli", "ptmt_lightning.inference",
    "ptmt_lightning.launch.jobs", "ptmt_lightning.launch.task", "ptmt_lightning.models.ptmt.module",
    "ptmt_lightning.training.train",
)  # fmt: skip


def warm_ptmt() -> list[str]:
    """Return the words that start the command ``ptmt``."""
    return [warm_python(), "-m", "ptmt_lightning.cli"]


@cache
def warm_python() -> str:
    """Return the file to start programs with; starts the warm process, which ends with this one."""
    if not hasattr(os, "pidfd_open"):  # not on Linux
        return sys.executable
    folder = Path(tempfile.mkdtemp(prefix="warm-"))  # removed by the warm process
    program, address, temporary = folder / "python", folder / "socket", folder / "tmp"
    temporary.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "PYTHONPATH"))}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen(64)
        process = subprocess.Popen(
            [sys.executable, __file__, str(listener.fileno()), str(folder)],
            cwd=folder, env=environment | {"HOME": str(folder), "TMPDIR": str(temporary)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            pass_fds=[listener.fileno()], start_new_session=True,
        )  # fmt: skip
    atexit.register(lambda: print(process.communicate()[0], end=""))  # the end of its input ends it
    program.write_text(
        f"#!{sys.executable} -ES\nimport sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"from warm_ask import ask\nask({str(address)!r})\n"
    )
    program.chmod(0o755)
    return str(program)


def _read_at_import(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(READ_AT_IMPORT) and not name.startswith(READ_LATER)
    }


class _Warm:
    """The warm process: forks for each request, and tells the one who asked how the fork ended."""

    def __init__(self, listener: socket.socket, environment: Mapping[str, str]) -> None:
        self.listener, self.environment = listener, environment
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ)
        self.selector.register(sys.stdin, selectors.EVENT_READ)
        self.forks: dict[int, tuple[int, socket.socket]] = {}  # process id and who asked, by the process's file

    def serve(self) -> dict[str, Any] | None:
        """Serve until standard input ends: return None then, and in each fork its request."""
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is sys.stdin:
                    for pid, _ in self.forks.values():
                        _kill(pid)
                    return None
                if key.fileobj is self.listener:
                    request = self._fork()
                    if request is not None:
                        return request
                elif key.data in self.forks:
                    self._end(key.data, asker_is_gone=key.fileobj != key.data)

    def _fork(self) -> dict[str, Any] | None:
        """Fork for a request, which is returned in the fork; the one who asked gets the process id, or None."""
        connection, _ = self.listener.accept()
        with suppress(OSError):  # the one who asked was ended meanwhile
            request, files = receive(connection, 3)
            words = request["words"]
            known = words and (words[0] in ("-m", "-u") or not words[0].startswith("-"))
            fits = known and _read_at_import(request["environment"]) == self.environment
            pid = os.fork() if fits else None
            if pid == 0:
                os.setsid()
                self._close()
                for number, file in enumerate(files):
                    os.dup2(file, number)
            for file in files:
                os.close(file)
            if pid:
                process = os.pidfd_open(pid)
                self.forks[process] = pid, connection
                self.selector.register(process, selectors.EVENT_READ, process)
                self.selector.register(connection, selectors.EVENT_READ, process)
                return None
            send(connection, pid if pid is None else os.getpid())
            connection.close()
            return request if pid == 0 else None
        connection.close()
        return None

    def _close(self) -> None:
        self.selector.close()
        self.listener.close()
        for process, (_, connection) in self.forks.items():
            os.close(process)
            connection.close()

    def _end(self, process: int, *, asker_is_gone: bool) -> None:
        pid, connection = self.forks.pop(process)
        if asker_is_gone:
            _kill(pid)
        _, status = os.waitpid(pid, 0)
        for file in (process, connection):
            self.selector.unregister(file)
        with suppress(OSError):
            send(connection, os.waitstatus_to_exitcode(status))
        connection.close()
        os.close(process)


def _kill(pid: int) -> None:
    """Kill a fork, and the processes that it started and that are still of its group."""
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)


def _run(request: dict[str, Any], folders: Temporary) -> None:
    """Run a request's program in this process as if Python had just started it."""
    import numpy as np
    import torch

    os.chdir(request["folder"])
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    np.random.seed()  # noqa: NPY002 - by chance, as at a start; a fork seeds Python's own generator
    torch.default_generator.seed()
    if encoding := os.environ.get("PYTHONIOENCODING"):
        for stream in (sys.stdin, sys.stdout, sys.stderr):
            errors = "backslashreplace" if stream is sys.stderr else "strict"
            stream.reconfigure(encoding=codecs.lookup(encoding).name, errors=errors)  # type: ignore[union-attr]
    tempfile.tempdir = None
    for each in folders:  # of libraries that make one when they are imported: a fork needs, and removes, its own
        each._finalizer.detach()  # type: ignore[attr-defined]
        each.__init__()  # type: ignore[misc]
    sys.executable = request["program"]
    words = request["words"]
    if words[0] == "-u":
        words = words[1:]
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    is_module = words[0] == "-m"
    folder = request["folder"] if is_module else str(Path(words[0]).absolute().parent)
    sys.path[:0] = [folder, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = words[is_module:]
    if is_module:
        if not hasattr(sys.modules.get(words[1]), "__path__"):  # of a package, __main__ is run
            sys.modules.pop(words[1], None)
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        path = Path(words[0]).absolute()
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        main.__file__ = str(path)
        exec(compile(path.read_bytes(), path, "exec"), main.__dict__)


def _exit_after(request: dict[str, Any], folders: Temporary) -> NoReturn:
    """Run a request's program and end as Python ends, but for tearing down its modules, which takes half a second."""
    code: Any = 1
    try:
        _run(request, folders)
        code = 0
    except SystemExit as end:
        code = end.code
        if not isinstance(code, int | None):
            print(code, file=sys.stderr)
            code = 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            code = -signal.SIGINT
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit((code or 0) & 255)


if __name__ == "__main__":
    started_with = _read_at_import(os.environ)  # imports change some
    sys.path[0] = str(ROOT_DIR)
    for name in MODULES:
        importlib.import_module(name)
    del sys.path[0]
    # Threads would be lost in forks, and what they hold stay locked; jemalloc (PyArrow) starts its own anew in a fork.
    threads = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    assert len(threads) - threads.count("jemalloc_bg_thd") == 1, threads
    gc.collect()
    folders = [each for each in gc.get_objects() if type(each) is tempfile.TemporaryDirectory]
    gc.freeze()
    work = _Warm(socket.socket(fileno=int(sys.argv[1])), started_with).serve()
    if work is None:
        shutil.rmtree(sys.argv[2])
    else:
        _exit_after(work, folders)
