"""What starts fast: neither help nor a slip of the pen waits for PyTorch, and no module needs what Windows lacks."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import get_args

import pytest
from conftest import ROOT_DIR
from omegaconf import OmegaConf

from ptmt_lightning.commands import data, export, predict, report
from ptmt_lightning.data.benchmarks.folds import NUM_FOLDS
from ptmt_lightning.inference.export import FileFormat
from ptmt_lightning.inference.text_files import INPUT_FORMATS
from ptmt_lightning.reporting.report import HEADLINE_METRICS

STARTS = """
import contextlib, io, json, sys
from ptmt_lightning import cli
from ptmt_lightning.launch import app

HEAVY = {"torch", "transformers", "lightning", "pandas", "pyarrow", "sklearn", "optuna", "wandb", "matplotlib"}
loaded, said = {}, None
for name in cli._COMMANDS:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        cli.main([name, "--help"])
    loaded[name] = sorted(HEAVY & set(sys.modules))
try:
    sys.argv[1:] = ["datset=bgc"]
    with contextlib.redirect_stderr(io.StringIO()) as shown:
        app.main()
except SystemExit as end:
    said = end.code, shown.getvalue()
print(json.dumps({"loaded": loaded | {"datset=bgc": sorted(HEAVY & set(sys.modules))}, "said": said}))
"""

IMPORTS = """
import builtins, importlib, pkgutil
import ptmt_lightning

original = builtins.__import__

def on_windows(name, namespace=None, *rest, **named):
    ours = (namespace or {}).get("__name__", "").startswith("ptmt_lightning")
    if ours and name in ("fcntl", "resource"):
        raise ImportError(f"{namespace['__name__']} imports {name}")
    return original(name, namespace, *rest, **named)

builtins.__import__ = on_windows
for module in pkgutil.walk_packages(ptmt_lightning.__path__, "ptmt_lightning."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
"""


def python(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT_DIR, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_parser_and_no_refusal_imports_what_is_heavy() -> None:
    found = json.loads(python(STARTS))
    assert {"train", "predict", "datset=bgc"} < set(found["loaded"])
    assert not any(found["loaded"].values()), found["loaded"]
    message = "error: datset=bgc: no key 'datset' in the configuration; did you mean 'dataset'?\n"
    assert found["said"] == [2, message]


@pytest.mark.slow
def test_every_module_can_be_imported_without_what_windows_lacks() -> None:
    """By the project's own modules: on other systems asyncio needs ``fcntl`` itself."""
    python(IMPORTS)


def test_choices_of_commands_are_those_of_the_modules_that_they_do_not_import() -> None:
    assert predict.INPUT_FORMATS == INPUT_FORMATS
    assert get_args(FileFormat) == export.FILE_FORMATS
    assert report.METRICS == HEADLINE_METRICS
    assert data.NUM_FOLDS == NUM_FOLDS


@pytest.mark.parametrize("name", data.benchmarks())
def test_a_benchmark_is_the_same_for_ptmt_data_and_for_a_run(name: str) -> None:
    found = data.benchmark_class(name)
    assert OmegaConf.load(ROOT_DIR / f"conf/dataset/{name}.yaml")._target_ == f"{found.__module__}.{found.__name__}"
