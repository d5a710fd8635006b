"""Errors end a program with one line and a code that tells; what no kind knows is a bug and keeps its traceback."""

from __future__ import annotations

import errno
import json
import pickle
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT_DIR
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from sqlalchemy.exc import OperationalError

from ptmt_lightning.launch.errors import JobsFailedError
from ptmt_lightning.launch.run_name import register_resolvers
from ptmt_lightning.utils.errors import one_line, reported_errors, system_error


def ending(error: BaseException, capsys: pytest.CaptureFixture[str], **options: Any) -> tuple[str, int]:
    """What a program shows that is ended by an error, and its exit code."""
    with pytest.raises(SystemExit) as end, reported_errors(**options):
        raise error
    shown = capsys.readouterr().err
    return (shown, end.value.code) if isinstance(end.value.code, int) else (shown + str(end.value.code), 1)


def raised(action: Callable[[], Any]) -> Exception:
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("no error")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "no space left on the disk; free some, then repeat the command"),
        (errno.EDQUOT, "no space left in the disk quota; free some"),
        (errno.EFBIG, "the file gets larger than the disk or a limit (ulimit -f) allows"),
        (errno.EACCES, "no permission; change the owner or the mode, or give another place"),
        (errno.EPERM, "no permission; change the owner or the mode"),
        (errno.EROFS, "the disk can only be read; give another place"),
        (errno.EMFILE, "too many open files; raise the limit (ulimit -n)"),
        (errno.ENOMEM, "out of memory; lower the batch size"),
    ],
)
def test_errors_of_the_system_name_file_reason_and_remedy(number: int, text: str) -> None:
    assert str(one_line(OSError(number, "as the system says", "/data/x"))).startswith(f"/data/x: {text}")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RuntimeError("Error while serializing: IoError(Os { code: 28, message: ... })"), "no space left on the disk"),
        (RuntimeError("database or disk is full"), "no space left on the disk"),
        (OperationalError("INSERT", {}, Exception("attempt to write a readonly database")), "can only be read"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), "out of m"),
        (RuntimeError("MPS backend out of memory"), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory; lower the batch size"),
        (MemoryError(), "out of memory; lower the batch size (dataset.batch_size, --batch-size)"),
    ],
)  # fmt: skip
def test_libraries_that_pass_on_a_full_disk_or_memory_are_understood(error: Exception, text: str) -> None:
    assert text in str(one_line(error))


def test_memory_that_is_not_there_is_named() -> None:
    assert "out of memory" in str(one_line(raised(lambda: np.ones((2**50,)))))
    assert "out of memory" in str(one_line(raised(lambda: torch.ones(2**50))))


def test_a_cause_in_the_chain_speaks() -> None:
    def wraps() -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "/x")
        except OSError as error:
            raise RuntimeError("the archive could not be finished") from error

    assert system_error(raised(wraps)) == "/x: no space left on the disk; free some, then repeat the command"
    assert system_error(RuntimeError("something else")) is None


def test_broken_files_are_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"PK\x03\x04 no zip")
    save_file({"a": torch.ones(3)}, tmp_path / "y")
    (tmp_path / "y").write_bytes((tmp_path / "y").read_bytes()[:-4])
    actions: list[Callable[[], Any]] = [
        lambda: zipfile.ZipFile(tmp_path / "x"),
        lambda: yaml.safe_load("a: [b"),
        lambda: pickle.loads(b"\x80\x04]"),
        lambda: load_file(tmp_path / "y"),
    ]
    for action in actions:
        line = str(one_line(raised(action)))
        assert line.startswith("a file is damaged, or not of the kind that was expected")
        assert "\n" not in line


def refuses(key: str) -> None:
    raise ValueError(f"{key}: expected less")


def test_settings_that_make_no_object_are_named() -> None:
    def made(**node: Any) -> str | None:
        return one_line(raised(lambda: instantiate(OmegaConf.create({"trainer": node}))))

    assert (
        made(_target_="lightning.Trainer", max_epoch=3) == "trainer.max_epoch: there is no such setting; leave it out"
    )
    assert made(_target_=f"{__name__}.refuses", key="a.b") == "a.b: expected less"
    assert "trainer: refuses() missing 1 required positional argument: 'key'" in str(
        made(_target_=f"{__name__}.refuses")
    )
    assert "Error locating target 'nowhere.Thing'" in str(made(_target_="nowhere.Thing"))
    assert one_line(InstantiationException("Error")) is not None


def test_lines_of_a_message_become_one_but_for_lists_of_jobs() -> None:
    assert one_line(MisconfigurationException("first\n\n   second  line")) == "first second line"
    assert (
        one_line(JobsFailedError("error: 2 of 3 jobs failed:\n[0]: a\n[1]: b")) == "2 of 3 jobs failed:\n[0]: a\n[1]: b"
    )


def test_missing_packages_and_lost_connections_are_no_bugs() -> None:
    assert one_line(ModuleNotFoundError("No module named 'peft'", name="peft")) == "No module named 'peft'; install it"
    assert one_line(ModuleNotFoundError("No module named 'ptmt_lightning.x'", name="ptmt_lightning.x")) is None
    assert "check the network" in str(one_line(ConnectionResetError("reset by peer")))


@pytest.mark.parametrize(
    "error", [TypeError("no len()"), KeyError("x"), AssertionError(), RuntimeError("shape"), IndexError()]
)
def test_everything_else_is_a_bug_and_says_where_to_report_it(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    shown, code = ending(error, capsys)
    assert "Traceback (most recent call last)" in shown
    last = shown.splitlines()[-1]
    assert last.startswith("bug: this is a fault of ptmt_lightning")
    assert "please report it with the lines above and the command, as CONTRIBUTING.md says (To report a bug)" in last
    assert code == 1
    assert "## To report a bug" in (ROOT_DIR / "CONTRIBUTING.md").read_text()


def test_codes_tell_failures_wrong_calls_and_interruptions_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert ending(ValueError("a=1: expected 2"), capsys) == ("error: a=1: expected 2", 1)
    assert ending(ValueError("a=1: expected 2"), capsys, code=2) == ("error: a=1: expected 2\n", 2)
    assert ending(KeyboardInterrupt(), capsys) == ("interrupted\n", 130)
    with pytest.raises(SystemExit) as end, reported_errors():
        raise SystemExit(143)
    assert end.value.code == 143


def test_an_exit_that_lightning_makes_of_an_interruption_tells_it(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    with pytest.raises(SystemExit) as end, reported_errors():
        interrupted()
    assert end.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_the_traceback_of_known_kinds_is_shown_on_demand(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PTMT_DEBUG", "1")
    shown, code = ending(ValueError("a=1: expected 2"), capsys)
    assert shown.startswith("Traceback (most recent call last)")
    assert shown.endswith("error: a=1: expected 2")
    assert code == 1


def test_no_password_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    address = "postgresql://ann:s3cret@host/db"
    assert (
        ending(ValueError(f"no answer from {address}"), capsys)[0]
        == "error: no answer from postgresql://ann:***@host/db"
    )
    assert "s3cret" not in ending(TypeError(address), capsys)[0]
    monkeypatch.setenv("PTMT_DEBUG", "1")
    assert "s3cret" not in ending(OSError(address), capsys)[0]


@pytest.mark.slow
@pytest.mark.parametrize("module", ["ptmt_lightning", "ptmt_lightning.cli"])
def test_the_modules_are_the_command(module: str, tmp_path: Path) -> None:
    """Three processes of a second or less each."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert run("--help").stdout.startswith("usage: ptmt")
    wrong = run("predikt")
    assert (wrong.returncode, "invalid choice: 'predikt'" in wrong.stderr) == (2, True)
    wrong = run("train", "epochs=3")
    assert wrong.returncode == 2
    assert wrong.stderr == "error: epochs=3: no key 'epochs' in the configuration; did you mean 'trainer.max_epochs'?\n"


@pytest.mark.slow
def test_a_reader_that_closes_its_end_gets_no_traceback(tmp_path: Path) -> None:
    """A process that prints more than a pipe holds."""
    script = (
        "from ptmt_lightning.utils.errors import reported_errors\n"
        "with reported_errors():\n"
        "    for _ in range(100_000): print('x' * 100)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT_DIR, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


def test_broken_json_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    shown, code = ending(raised(lambda: json.loads("{")), capsys)
    assert (shown, code) == ("error: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)", 1)
    assert signal.SIGINT + 128 == 130


def test_a_setting_that_follows_from_a_wrong_one_names_the_wrong_one() -> None:
    register_resolvers()
    config = OmegaConf.create({"monitor": "val/time", "mode": "${direction_of:${monitor}}"})
    assert one_line(raised(lambda: config.mode)) == (
        "monitor='val/time': expected a score or a loss, which are better when they are higher or lower; set monitor "
        "to one, such as val/h_f1_macro or val/label_loss"
    )


def test_a_value_that_a_library_refuses_names_the_group() -> None:
    config = OmegaConf.create({"trainer": {"_target_": "lightning.Trainer", "devices": "abc", "accelerator": "cpu"}})
    shown = one_line(raised(lambda: instantiate(config).trainer))
    assert shown == "trainer: `devices` selected with `CPUAccelerator` should be an int > 0.; change the setting"
