"""An installation from a wheel, in an environment of its own: it trains and searches without a checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT_DIR, write_toy
from omegaconf import OmegaConf

pytestmark = pytest.mark.slow

TINY = [
    "backbone=tiny", "backbone.hidden_size=32", "backbone.num_layers=1",
    "trainer.limit_train_batches=2", "trainer.limit_val_batches=1", "trainer.max_epochs=1", "test=false",
    "trainer.enable_progress_bar=false", "callbacks.progress_bar=null", "logger=none",
]  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT_DIR, cwd=folder)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def commands(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``bin/`` of an environment with the wheel, and the packages of this one that it needs."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    [packages] = (folder / "lib").glob("python*/site-packages")
    # Of a folder that a .pth file names, Python reads no .pth files: the checkout's is not found.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    return python.parent


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command to its end, without a hub or an account; give what it printed."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "PYTHONPATH"))}
    offline = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=inherited | offline, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_the_packages_their_files_and_the_configurations(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = [path for path in (ROOT_DIR / "ptmt_lightning").rglob("*.*") if path.suffix != ".pyc"]
    assert {path.suffix for path in package} >= {".py", ".js", ".html"}
    plugins = (ROOT_DIR / "hydra_plugins").glob("*.py")  # without __init__.py: other distributions have some, too
    expected = {path.relative_to(ROOT_DIR).as_posix() for path in [*package, *plugins]}
    configurations = (ROOT_DIR / "conf").rglob("*.yaml")
    assert names == expected | {f"ptmt_lightning/{path.relative_to(ROOT_DIR).as_posix()}" for path in configurations}
    assert "hydra_plugins/__init__.py" not in names


def test_the_package_of_the_wheel_has_its_own_configurations(commands: Path, tmp_path: Path) -> None:
    script = "from ptmt_lightning.launch import conf; print(conf.__file__, conf.conf_folder())"
    module, folder = map(Path, run(commands / "python", "-c", script, cwd=tmp_path).split())
    assert module.is_relative_to(commands.parent)
    assert folder == module.parents[1] / "conf"
    spaces = sorted(path.name for path in (ROOT_DIR / "conf/search").iterdir())
    assert sorted(path.name for path in (folder / "search").iterdir()) == spaces  # of ptmt dashboard


def test_it_trains_on_two_devices_with_a_users_configuration(commands: Path, tmp_path: Path) -> None:
    (tmp_path / "mine/dataset").mkdir(parents=True)
    (tmp_path / "mine/dataset/mine.yaml").write_text("defaults: [jsonl]\nname: mine\npath: toy\nbatch_size: 2\n")
    write_toy(tmp_path / "toy")
    ranks = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    arguments = [*TINY, *ranks, "dataset=mine", "hydra.run.dir=run", "--config-dir", "mine"]
    run(commands / "ptmt", "train", *arguments, cwd=tmp_path)
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert (result["dataset"], result["num_devices"], result["steps"]) == ("mine", 2, 2)


def test_it_searches(commands: Path, tmp_path: Path) -> None:
    """Two jobs of a sweep, from the plugins of the wheel."""
    write_toy(tmp_path / "toy")
    data = ["dataset=jsonl", "dataset.path=toy", "trainer=cpu"]
    search = ["search=ptmt", "hydra.sweeper.n_trials=2", "hydra.sweeper.sampler=random"]
    run(commands / "ptmt", "train", *TINY, *data, *search, cwd=tmp_path)
    results = OmegaConf.load(tmp_path / "outputs/studies/toy-ptmt/optimization_results.yaml")
    assert results.trials == {"complete": 2}
    assert results.command.startswith("ptmt train backbone=tiny ")
