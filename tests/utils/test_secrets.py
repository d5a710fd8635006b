"""Passwords stay in the environment: nothing that is written, shown or started holds them."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest
from conftest import ROOT_DIR
from helpers import start, toy_arguments
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ptmt_lightning.launch.overrides import arguments_for_hydra, mask_file, written
from ptmt_lightning.launch.run_name import register_resolvers
from ptmt_lightning.search.storage import open_storage
from ptmt_lightning.utils.secrets import in_environment, is_secret, mask, mask_logs, masked


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://ann:s3cret@host:5432/db", "postgresql://ann:***@host:5432/db"),
        ("mysql+pymysql://ann:p@ss:w/rd@host/db?ssl=1", "mysql+pymysql://ann:***@host/db?ssl=1"),
        ("redis://:s3cret@host:6379/0", "redis://:***@host:6379/0"),
        ("https://hf_abcdef@hub.example/x", "https://***@hub.example/x"),
        ("https://me:tok@proxy:3128", "https://me:***@proxy:3128"),
        ("https://host/x?token=abc&y=1", "https://host/x?token=***&y=1"),
        ("postgresql://h/db?user=a&password=b", "postgresql://h/db?user=a&password=***"),
        ("two: a://u:p@h, b://u:q@h.", "two: a://u:***@h, b://u:***@h."),
        # no secrets
        ("postgresql://ann@host/db", "postgresql://ann@host/db"),
        ("http://host:8000/owner/name@v1", "http://host:8000/owner/name@v1"),
        ("sqlite:////data/study.db", "sqlite:////data/study.db"),
        ("postgresql://ann:${oc.env:PW}@host/db", "postgresql://ann:${oc.env:PW}@host/db"),
        ("mail me: a:b@c", "mail me: a:b@c"),
        ("postgresql://ann:***@host/db", "postgresql://ann:***@host/db"),
    ],
)
def test_a_password_in_a_url_is_masked_and_nothing_else(text: str, shown: str) -> None:
    assert mask(text) == shown
    assert mask(shown) == shown
    assert is_secret("any.setting", text) == (text != shown)


def test_settings_are_masked_by_their_name_too() -> None:
    content = {"a": {"api_key": "k", "num_prompt_tokens": 4, "hf_token": "t", "urls": ["x://u:p@h"]}, "token": None}
    shown = {"a": {"api_key": "***", "num_prompt_tokens": 4, "hf_token": "***", "urls": ["x://u:***@h"]}, "token": None}
    assert masked(content) == shown
    assert masked({"password": "${oc.env:PW}"}) == {"password": "${oc.env:PW}"}


@pytest.mark.parametrize(
    ("arguments", "last", "variables"),
    [
        (
            ["hydra/sweeper=optuna", "hydra.sweeper.storage=postgresql://ann:s3cret@host/db"],
            "hydra.sweeper.storage='${oc.env:PTMT_SECRET_HYDRA_SWEEPER_STORAGE}'",
            {"PTMT_SECRET_HYDRA_SWEEPER_STORAGE": "postgresql://ann:s3cret@host/db"},
        ),
        (
            ["dataset=wos", "dataset.mirror='https://ann:s3cret@host/x'"],
            "dataset.mirror='${oc.env:PTMT_SECRET_DATASET_MIRROR}'",
            {"PTMT_SECRET_DATASET_MIRROR": "https://ann:s3cret@host/x"},
        ),
        (
            ["+mine.api_key=s3cret"],
            "+mine.api_key='${oc.env:PTMT_SECRET_MINE_API_KEY}'",
            {"PTMT_SECRET_MINE_API_KEY": "s3cret"},
        ),
        (
            ["-m", "dataset=wos", "dataset.mirror=x://u:s3cret@h,x://u:s3cret@i"],
            "dataset.mirror='${oc.env:PTMT_SECRET_DATASET_MIRROR_0}','${oc.env:PTMT_SECRET_DATASET_MIRROR_1}'",
            {"PTMT_SECRET_DATASET_MIRROR_1": "x://u:s3cret@i"},
        ),
    ],
)  # fmt: skip
def test_secrets_move_from_the_command_line_to_the_environment(
    arguments: list[str], last: str, variables: dict[str, str]
) -> None:
    assert arguments_for_hydra(arguments)[-1] == last
    assert {name: os.environ[name] for name in variables} == variables


def test_what_is_written_keeps_references_to_the_environment_and_masks_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE", "postgresql://ann:s3cret@host/db")
    monkeypatch.setenv("PW", "s3cret")
    register_resolvers()
    arguments = [
        "dataset.path='${oc.env:DATABASE}'",
        "run.dir=x",
        "run.model=m",
        "run.loss=l",
        "run.variant='a://u:s3cret@h'",
    ]
    arguments += ["run.group='a://u:${oc.env:PW}@h'"]
    with initialize_config_dir(str(ROOT_DIR / "conf"), version_base="1.3"):
        config = compose("config", arguments)
    OmegaConf.set_struct(config, False)
    config.default_copy = "${dataset.path}"
    settings = written(config)
    assert "s3cret" not in json.dumps(settings)
    assert settings["dataset"]["path"] == settings["default_copy"] == "${oc.env:DATABASE}"
    assert settings["run"]["variant"] == "a://u:***@h"
    assert settings["run"]["group"] == "a://u:${oc.env:PW}@h"
    assert config.dataset.path == "postgresql://ann:s3cret@host/db"  # and is used as it is
    assert OmegaConf.create(settings).default_copy == "postgresql://ann:s3cret@host/db"  # also by a run that goes on


def test_a_secret_is_no_part_of_a_name() -> None:
    register_resolvers()
    assert OmegaConf.create({"name": "${folder_name:'x://ann:s3cret@host'}"}).name == "ann:***@host"


def test_files_that_hydra_wrote_are_masked(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("a: x://u:s3cret@h\nb: ${a}\n")
    mask_file(path)
    assert path.read_text() == "a: x://u:***@h\nb: ${a}\n"


def test_logs_are_masked(caplog: pytest.LogCaptureFixture) -> None:
    before = logging.getLogRecordFactory()
    mask_logs()
    try:
        logging.getLogger("any").warning("no way to %s (%d)", "x://u:s3cret@h", 3)
    finally:
        logging.setLogRecordFactory(before)
    assert caplog.messages == ["no way to x://u:***@h (3)"]


def test_a_storage_that_cannot_be_opened_hides_its_password() -> None:
    with pytest.raises(ValueError, match=r"^hydra.sweeper.storage=nosuch://ann:\*\*\*@host/db: ") as error:
        open_storage("nosuch://ann:s3cret@host/db")
    assert "s3cret" not in str(error.value)


def test_the_same_setting_gets_the_same_variable() -> None:
    assert in_environment("hydra.sweeper.storage", "a") == in_environment("hydra.sweeper.storage", "b")
    assert os.environ["PTMT_SECRET_HYDRA_SWEEPER_STORAGE"] == "b"


@pytest.mark.slow
def test_no_file_and_no_output_of_a_search_has_the_password(toy_folder: Path, tmp_path: Path) -> None:
    """A search with one trial, whose storage takes any password: a file of SQLite."""
    database = f"sqlite:///file:{tmp_path}/s.db?uri=true&password=s3cret"
    arguments = [
        *toy_arguments(toy_folder), "search=ptmt", "hydra.sweeper.n_trials=1", "trainer.max_epochs=1",
        f"hydra.sweeper.storage={database}", "hydra.sweeper.sampler=random",
        "hydra.sweeper.pruner=successive_halving", "logger=many", "hydra.output_subdir=.hydra",
        "+mirror=https://ann:s3cret@host/x",
    ]  # fmt: skip
    done = start(tmp_path, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "s3cret" not in done.stdout + done.stderr
    holding = [p for p in tmp_path.rglob("*") if p.is_file() and b"s3cret" in p.read_bytes()]
    assert holding == []
    [trial] = (tmp_path / "outputs/studies").glob("*/0")
    settings = OmegaConf.load(trial / "config.yaml")
    assert (
        OmegaConf.to_container(settings)["callbacks"]["pruning"]["storage"]
        == "${oc.env:PTMT_SECRET_HYDRA_SWEEPER_STORAGE}"
    )  # type: ignore[call-overload, index]


@pytest.mark.parametrize(
    ("key", "value"),
    [("db.password", 123456), ("auth", "x"), ("headers.authorization", "Bearer x"), ("credentials", "x"),
     ("s3_secret_key", "x"), ("api-key", "x"), ("db_pass", "x"), ("passphrase", "x"), ("session.cookie", "x")],
)  # fmt: skip
def test_settings_called_secrets_are_masked_whatever_their_type(key: str, value: object) -> None:
    assert masked({key.rpartition(".")[2]: value}) == {key.rpartition(".")[2]: "***"}


@pytest.mark.parametrize("key", ["num_prompt_tokens", "max_tokens", "compile_passes", "key", "label_tokens", "author"])
def test_settings_that_only_sound_like_secrets_stay(key: str) -> None:
    assert masked({key: 3}) == {key: 3}
