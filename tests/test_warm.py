"""A program that is started as a fork of a warm process finds and leaves what it would after a start of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import is_running, wait_for
from warm import warm_python

# What a run could depend on.
STATE = """
import json, os, random, signal, sys, threading, __main__
import numpy as np, torch
print(json.dumps({
    "argv": sys.argv, "path": sys.path, "folder": os.getcwd(), "environment": dict(os.environ),
    "main": [__main__.__name__, __main__.__file__, __main__.__spec__ and __main__.__spec__.name, __name__],
    "streams": [[s.encoding, s.errors, s.line_buffering] for s in (sys.stdin, sys.stdout, sys.stderr)],
    "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
    "threads": [torch.get_num_threads(), torch.get_num_interop_threads(), threading.active_count()],
    "torch": [str(torch.get_default_dtype()), torch.is_grad_enabled()],
    "files": sorted(os.listdir("/proc/self/fd"))[:3], "umask": os.umask(0),
    "drawn": [random.random(), np.random.random(), torch.rand(1).item()], "input": sys.stdin.read(),
}))
"""


def state(python: str, *words: str, folder: Path, **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [python, *words], cwd=folder, env=os.environ | environment, input="typed", capture_output=True, text=True,
        check=True, umask=0o027,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.parametrize("words", [["script.py", "a=1", "--b"], ["-m", "module", "c"]])
def test_a_fork_finds_what_a_start_finds(words: list[str], tmp_path: Path) -> None:
    for name in ("script.py", "module.py"):
        (tmp_path / name).write_text(STATE)
    (tmp_path / "modules").mkdir()
    settings = {"PYTHONPATH": str(tmp_path / "modules"), "HOME": str(tmp_path), "PYTHONIOENCODING": "latin-1"}
    fresh, warm, again = (
        state(python, *words, folder=tmp_path, **settings) for python in (sys.executable, warm_python(), warm_python())
    )
    drawn = [each.pop("drawn") for each in (fresh, warm, again)]
    assert warm == again == fresh
    assert len({number for three in drawn for number in three}) == 9  # by chance


def run(script: str, tmp_path: Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    (tmp_path / "script.py").write_text(script)
    return subprocess.run(
        [warm_python(), tmp_path / "script.py"], capture_output=True, text=True, check=False, **settings
    )


@pytest.mark.parametrize(
    ("script", "code", "error"),
    [
        ("", 0, ""),
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('error: no')", 1, "error: no\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL, ""),
        ("raise KeyboardInterrupt", -signal.SIGINT, "KeyboardInterrupt\n"),
        ("import atexit; atexit.register(print, 'bye', file=__import__('sys').stderr)", 0, "bye\n"),
        ("import threading, time; threading.Thread(target=lambda: [time.sleep(0.1), exit(print(1))]).start()", 0, ""),
    ],
)
def test_a_fork_ends_as_a_program_ends(script: str, code: int, error: str, tmp_path: Path) -> None:
    done = run(script, tmp_path)
    assert done.returncode == code
    assert done.stderr.endswith(error)
    assert done.stdout == ("1\n" if "print(1)" in script else "")


def test_programs_that_a_fork_starts_are_warm_too(tmp_path: Path) -> None:
    nested = "import sys, subprocess as s; print(sys.executable, flush=True); s.run([sys.executable, 'inner.py'])"
    (tmp_path / "inner.py").write_text("import sys; print(sys.executable, 'torch' in sys.modules)")
    assert run(nested, tmp_path, cwd=tmp_path).stdout == f"{warm_python()}\n{warm_python()} True\n"


def test_folders_that_a_library_makes_when_it_is_imported_are_each_forks_own(tmp_path: Path) -> None:
    script = "from wandb.sdk.data_types._private import MEDIA_TMP as m; import os; print(m.name, os.path.isdir(m.name))"
    found = [run(script, tmp_path).stdout.split() for _ in range(2)]
    assert [exists for _, exists in found] == ["True", "True"]
    assert found[0][0] != found[1][0]
    assert not any(Path(folder).exists() for folder, _ in found)


def test_what_a_fork_can_not_be_given_starts_afresh(tmp_path: Path) -> None:
    script = "import sys; print('torch' in sys.modules)"
    assert run(script, tmp_path).stdout == "True\n"
    assert run(script, tmp_path, env=os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9"}).stdout == "False\n"
    done = subprocess.run([warm_python(), "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_signals_reach_a_fork_and_nothing_is_left_of_it(how: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import os, subprocess, time\nchild = subprocess.Popen(['sleep', '100'])\n"
        "try:\n    print(os.getpid(), child.pid, flush=True)\n    time.sleep(100)\nfinally:\n    child.kill()\n"
    )
    process = subprocess.Popen(
        [warm_python(), tmp_path / "script.py"], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    fork, child = map(int, process.stdout.readline().split())
    process.send_signal(how)
    assert process.wait(20) == -how
    process.stdout.close()
    wait_for(lambda: not is_running(fork), 10)
    if how == signal.SIGTERM:  # which ends a program at once, here as elsewhere
        os.kill(child, signal.SIGKILL)
    wait_for(lambda: not is_running(child), 10)
