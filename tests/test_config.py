"""Every choice of every group composes, and a slip of the pen is refused with what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT_DIR
from omegaconf import OmegaConf

from ptmt_lightning import config


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT_DIR / "conf/dataset").glob("*.yaml")))
def test_every_dataset_composes(name: str) -> None:
    config.check_overrides([f"dataset={name}", "trainer.devices=4"])


@pytest.mark.parametrize("group", ["experiment", "debug", "logger", "loss", "impl", "trainer", "backbone", "callbacks"])
def test_every_choice_composes(group: str) -> None:
    for path in (ROOT_DIR / "conf" / group).glob("*.yaml"):
        config.check_overrides([f"{group}={path.stem}"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dataset=bcg"], r"dataset=bcg: no dataset 'bcg'; did you mean 'bgc'\? Known: amazon, bgc, bugs"),
        (["loss.margn=0.1"], r"no key 'loss.margn' in the configuration; did you mean 'loss.margin'\?"),
        (["loss=bce,wsal"], r"no loss 'wsal'; did you mean 'wasl'\?"),
        (["trainer.devcies=4"], r"did you mean 'trainer.devices'\?"),
        (["resume=x", "seed=1"], "resume goes on with the run's own configuration"),
        (["loss=cross_entropy", "loss.margin=0.1"], "no key 'loss.margin'"),
    ],
)
def test_misspelt_keys_and_choices(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config.check_overrides(arguments)


def test_valid_overrides_pass() -> None:
    config.check_overrides(["-m", "loss=wasl,bce", "loss.margin=0.02,0.05", "seed=range(3)", "+trainer.barebones=true"])


def test_resume_needs_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("resume: null")
    with pytest.raises(
        ValueError, match=r"resume='.*': no checkpoints/last.ckpt there; expected the folder of an earlier"
    ):
        config.resumed(OmegaConf.create({"resume": str(tmp_path)}), tmp_path)
