"""Texts on the command line are what stands there, whatever Hydra's grammar makes of it; slips are understood."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT_DIR
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ptmt_lightning.launch.app import main  # noqa: F401 (its resolvers)
from ptmt_lightning.launch.checks import check_overrides
from ptmt_lightning.launch.overrides import arguments_for_hydra
from ptmt_lightning.launch.suggestions import _MEANT, key_meant

HOME = Path("~").expanduser()


def composed(*arguments: str) -> object:
    """The value that the last argument's setting has in the configuration."""
    given = arguments_for_hydra(arguments)
    with initialize_config_dir(str(ROOT_DIR / "conf"), version_base="1.3"):
        config = compose("config", given, return_hydra_config=True)
    return OmegaConf.select(config, arguments[-1].partition("=")[0].lstrip("+"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (key, value)
        for key in ("dataset.path", "dataset.name", "backbone.name", "hydra.run.dir", "cache_dir", "optimizer.schedule")
        for value in ("/data/run=1", "/data/données", "final (2)", "models/epoch=3", "[x] {y}", "a,b", "it's", "x: y")
    ],
)  # fmt: skip
def test_a_setting_that_is_a_text_may_hold_any_characters(key: str, value: str) -> None:
    assert composed(f"{key}={value}") == value


@pytest.mark.parametrize("value", ["2024", "1e-3", "true", "[a,b]", "{a: b}", "choice(a,b)", "interval(1,2)"])
def test_what_looks_like_a_number_or_a_list_stays_a_text(value: str) -> None:
    assert composed(f"dataset.path={value}") == value
    assert composed("logger=wandb", f"logger.wandb.name={value}") == value


@pytest.mark.parametrize("key", ["dataset.path", "backbone.name", "hydra.run.dir", "cache_dir"])
def test_a_tilde_is_the_home_folder(key: str) -> None:
    assert composed(f"{key}=~/my data/run=1") == f"{HOME}/my data/run=1"


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["logger=wandb", "logger.wandb.project=a=b"], "a=b"),
        (["run.variant=a=b (c)"], "a=b (c)"),  # null without the command line: read by Hydra where it can
        (["+mine.note=a=b"], "a=b"),
        (["+mine.number=3"], 3),
        (["dataset.path='quoted, already'"], "quoted, already"),
        (["dataset.path=${cache_dir}/x=1"], "data/cache/x=1"),
        (["backbone.max_length=128"], 128),
        (["dataset.train_fraction=0.5"], 0.5),
        (["logger=wandb", "logger.wandb.name=null"], None),
        (["trainer.devices=[0,1]"], [0, 1]),
        (["trainer.strategy={_target_: a.B}"], {"_target_": "a.B"}),
        (["logger=wandb", "logger.wandb.tags=[a,b c]"], ["a", "b c"]),
    ],
)
def test_other_settings_keep_their_types(arguments: list[str], value: object) -> None:
    assert composed(*arguments) == value


@pytest.mark.parametrize(
    ("argument", "given"),
    [
        ("dataset.path=~/a,/data/run=1", f"dataset.path='{HOME}/a','/data/run=1'"),
        ("dataset.name=2024,2025", "dataset.name='2024','2025'"),
        ("dataset.path='a,b',c=1", "dataset.path='a,b','c=1'"),
        ("model.prompts=shared,per_document", "model.prompts=shared,per_document"),
        ("dataset.path=choice(a,b)", "dataset.path=choice(a,b)"),
        ("optimizer.learning_rate=1e-3,1e-4", "optimizer.learning_rate=1e-3,1e-4"),
    ],
)
def test_commas_stay_those_of_a_sweep_where_one_is_started(
    argument: str, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert arguments_for_hydra(["-m", argument]) == ["-m", given]
    said = capsys.readouterr().err
    assert ("read as 2 values of the sweep; a value that holds a comma needs quotes" in said) == ("/" in argument)


@pytest.mark.parametrize("given", ["{run}", "{run}/checkpoints/last.ckpt", "{run}/checkpoints", "{run}/config.yaml"])
def test_a_run_goes_on_by_its_folder_or_what_is_in_it(given: str, tmp_path: Path) -> None:
    run_dir = tmp_path / "a=1, (b)"
    arguments = arguments_for_hydra([f"resume={given.format(run=run_dir)}"])
    assert arguments == [f"resume='{run_dir}'", f"hydra.run.dir='{run_dir}'"]
    assert arguments_for_hydra(["resume=~/x"])[0] == f"resume='{HOME}/x'"


@pytest.mark.parametrize("name", ["best.ckpt", "previous.ckpt", "epoch=3.ckpt"])
def test_another_checkpoint_is_refused_with_the_runs_folder(name: str) -> None:
    with pytest.raises(ValueError, match=r"a run goes on from its newest checkpoint; give the run's folder, /a/run$"):
        arguments_for_hydra([f"resume=/a/run/checkpoints/{name}"])


def test_what_hydra_cannot_read_is_named_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"^seed=1\)\(: can't be read \(.*\); put a text into quotes, as in seed="):
        check_overrides(["seed=1)("])


# ---- suggestions ----


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("lr", "optimizer.learning_rate"), ("learning_rate", "optimizer.learning_rate"),
        ("optimizer.lr", "optimizer.learning_rate"), ("trainer.lr", "optimizer.learning_rate"),
        ("epochs", "trainer.max_epochs"), ("num_train_epochs", "trainer.max_epochs"), ("batch", "dataset.batch_size"),
        ("bs", "dataset.batch_size"), ("per_device_train_batch_size", "dataset.batch_size"),
        ("model_name", "backbone.name"), ("model_name_or_path", "backbone.name"), ("gpus", "trainer.devices"),
        ("wd", "optimizer.weight_decay"), ("max_len", "backbone.max_length"), ("max_seq_length", "backbone.max_length"),
        ("random_seed", "seed"), ("sed", "seed"), ("datset", "dataset"), ("trainer.max_epoch", "trainer.max_epochs"),
        ("output_dir", "hydra.run.dir"), ("fp16", "impl.precision"), ("patience", "callbacks.early_stopping.patience"),
        ("train.batch-size", "dataset.batch_size"), ("warmup", "optimizer.warmup_ratio"), ("data_dir", "dataset.path"),
    ],
)  # fmt: skip
def test_the_likeliest_key_is_suggested_by_look_or_by_meaning(key: str, meant: str) -> None:
    with pytest.raises(ValueError, match=f"no key '{key}' in the configuration; did you mean '{meant}'\\?$"):
        check_overrides([f"{key}=1"])


@pytest.mark.parametrize("key", ["foo", "xyz.qqq", "temperature_of_water", "q"])
def test_nothing_is_suggested_where_nothing_is_near(key: str) -> None:
    with pytest.raises(ValueError, match=rf"no key '{key}' in the configuration; .* --help lists the groups") as error:
        check_overrides([f"{key}=1"])
    assert "did you mean" not in str(error.value)


def test_a_choice_that_is_near_to_none_gets_the_list_alone() -> None:
    with pytest.raises(
        ValueError, match=r"^model=xyz: no model 'xyz'\. Known: bert, bert_ml, frozen, gacaps, hbgl, hpt, ptmt, tfidf$"
    ):
        check_overrides(["model=xyz"])


@pytest.mark.slow
def test_every_key_that_is_suggested_exists() -> None:
    for key in set(_MEANT.values()):
        if key not in ("experiment", "logger", "hydra.sweeper.n_trials"):  # groups, and a key of searches
            assert composed("seed=1", f"{key}=1") in (1, "1")
    assert key_meant("nothing", []) is None
