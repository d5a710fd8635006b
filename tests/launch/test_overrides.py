"""Every choice of every group composes, and a slip of the pen is refused with what was meant."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import ROOT_DIR
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from ptmt_lightning.launch.app import main  # noqa: F401 (its resolvers)
from ptmt_lightning.launch.checks import check_multirun, check_overrides
from ptmt_lightning.launch.overrides import arguments_for_hydra, quoted
from ptmt_lightning.launch.resume import resumed
from ptmt_lightning.launch.run_name import run_name
from ptmt_lightning.search.ranges import distribution_of
from ptmt_lightning.utils.errors import reported_errors


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT_DIR / "conf/dataset").glob("*.yaml")))
def test_every_dataset_composes(name: str) -> None:
    check_overrides([f"dataset={name}", "trainer.devices=4"])


@pytest.mark.parametrize("group", ["experiment", "debug", "logger", "loss", "impl", "trainer", "backbone", "callbacks"])
def test_every_choice_composes(group: str) -> None:
    for path in (ROOT_DIR / "conf" / group).glob("*.yaml"):
        check_overrides([f"{group}={path.stem}"])


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT_DIR / "conf/search").glob("*.yaml")))
def test_every_search_has_keys_and_ranges_of_its_model(name: str) -> None:
    space = OmegaConf.load(ROOT_DIR / f"conf/search/{name}.yaml").hydra.sweeper.params
    model, loss = name if (ROOT_DIR / f"conf/model/{name}.yaml").exists() else "ptmt", list[str]()
    if (ROOT_DIR / f"conf/loss/{name}.yaml").exists():  # of a plain head with that loss
        model, loss = "bert", [f"loss={name}"]
    keys = [f"{key}={OmegaConf.to_container(space)[key]}" for key in space]
    check_overrides([f"model={model}", *loss, *keys])
    for override in OverridesParser.create().parse_overrides(keys):
        assert override.is_sweep_override()
        assert distribution_of(override)
    with initialize_config_dir(str(ROOT_DIR / "conf"), version_base="1.3"):
        composed = compose("config", [f"search={name}", f"model={model}", *loss], return_hydra_config=True)
    assert composed.test is False
    assert composed.hydra.mode == RunMode.MULTIRUN
    assert composed.hydra.sweeper.study == f"sample-{model}"
    assert composed.hydra.sweeper.n_jobs == 1


def test_slurm_asks_for_what_the_trainer_has() -> None:
    with initialize_config_dir(str(ROOT_DIR / "conf"), version_base="1.3"):
        arguments = ["hydra/launcher=slurm", "trainer.devices=4", "trainer.num_nodes=2"]
        launcher = compose("config", arguments, return_hydra_config=True).hydra.launcher
    assert launcher._target_ == "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher"
    assert (launcher.nodes, launcher.tasks_per_node, launcher.gpus_per_node) == (2, 4, 4)


def test_the_wandb_sweep_has_keys_and_values_that_run_py_takes() -> None:
    sweep = OmegaConf.to_container(OmegaConf.load(ROOT_DIR / "experiments/wandb_sweep/sweep.yaml"), resolve=False)
    assert isinstance(sweep, dict)
    for key, values in sweep["parameters"].items():
        for value in values.get("values") or [values["min"], values["max"]]:
            check_overrides([*sweep["command"][3:-1], f"{key}={value}"])
    assert (ROOT_DIR / sweep["program"]).exists()


def test_a_run_of_several_ranks_has_one_name_and_that_of_one_rank_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_name() != run_name()
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    assert run_name() != run_name()  # several runs, one after the other, in one job
    monkeypatch.setenv("SLURM_STEP_ID", "3")
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")
    assert run_name() != run_name()
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    assert run_name() == run_name() == "slurm-77-3"


@pytest.mark.parametrize("variable", ["WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_a_sweep_on_every_rank_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "4")
    check_multirun(["seed=0"])
    check_multirun(["search=ptmt", "hydra.mode=RUN"])  # a rank of a search's job
    for flag in ("-m", "--multirun", "search=ptmt"):
        with pytest.raises(ValueError, match=r"a sweep was started 4 times \(torchrun, srun\): expected once; start"):
            check_multirun([flag, "seed=0,1"])


@pytest.mark.parametrize("text", ["a b", "it's", 'say "x"', "k=v,w", "${x}", "back\\slash", "[a]{b}", ""])
def test_quoted_texts_are_read_back_as_they_were(text: str) -> None:
    override = OverridesParser.create().parse_override(f"key={quoted(text)}")
    assert override.value() == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dataset=bcg"], r"dataset=bcg: no dataset 'bcg'; did you mean 'bgc'\? Known: amazon, bgc, bugs"),
        (["loss.margn=0.1"], r"no key 'loss.margn' in the configuration; did you mean 'loss.margin'\?"),
        (["loss=bce,wsal"], r"no loss 'wsal'; did you mean 'wasl'\?"),
        (["trainer.devcies=4"], r"did you mean 'trainer.devices'\?"),
        (
            ["resume=x", "seed=1", "trainer.max_epochs=3"],
            r"^resume goes on with the run's own configuration; leave out all other settings but "
            r"trainer.max_epochs and trainer.max_steps$",
        ),
        (["loss=cross_entropy", "loss.margin=0.1"], "no key 'loss.margin'"),
    ],
)
def test_misspelt_keys_and_choices(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_overrides(arguments)


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """A user's configurations: a data set, and a group that ``conf/`` does not have."""
    folder = tmp_path / "it's mine, [1]"
    for name, text in (("dataset/poems", "defaults: [sample]\nstanzas: 4\n"), ("corpus/small", "lines: 10\n")):
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    (folder / "thesis.yaml").write_text("defaults: [config, _self_]\nchapter: 3\n")
    return folder


def test_choices_keys_and_groups_of_a_users_folder_are_known(own_folder: Path) -> None:
    for option in (["--config-dir", str(own_folder)], [f"-cd={own_folder}"]):
        check_overrides(["dataset=poems", "dataset.stanzas=5", "+corpus=small", "corpus.lines=20", *option])
        check_overrides(["-m", *option, "dataset=poems,bgc"])
    check_overrides(["--config-dir", str(own_folder), "--config-name", "thesis", "chapter=4", "dataset=poems"])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "dataset=peoms",
            r"no dataset 'peoms'; did you mean 'poems'\? Known: amazon, bgc, bugs, jsonl, nyt, poems, rcv1",
        ),
        ("+corpus=smal", r"no corpus 'smal'; did you mean 'small'\? Known: small$"),
        ("loss.margn=0.1", r"no key 'loss.margn' in the configuration; did you mean 'loss.margin'\?"),
    ],
)
def test_misspelt_keys_and_choices_beside_a_users_folder(own_folder: Path, argument: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_overrides([argument, "--config-dir", str(own_folder)])


def test_a_users_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"^--config-dir nowhere: no such folder; give one that holds groups"):
        check_overrides(["seed=1", "--config-dir", "nowhere"])


@pytest.mark.parametrize(
    "arguments",
    [["--config-path", "other", "x=1"], ["hydra.searchpath=[pkg://other]", "dataset=x"], ["-sc", "install=bash"]],
)
def test_what_only_hydra_knows_is_left_to_it(arguments: list[str]) -> None:
    check_overrides(arguments)


def test_options_stand_before_overrides() -> None:
    arguments = arguments_for_hydra(["seed=1", "--config-dir", "mine", "loss=bce", "-m", "dataset=bgc"])
    assert arguments == ["--config-dir", "mine", "-m", "seed=1", "loss=bce", "dataset=bgc"]


def test_valid_overrides_pass() -> None:
    check_overrides(["-m", "loss=wasl,bce", "loss.margin=0.02,0.05", "seed=range(3)", "+trainer.barebones=true"])


@pytest.mark.parametrize("folder", ["runs/a", "a=1,b=(2)", "it's here"])
def test_a_folder_to_resume_may_have_any_name(folder: str) -> None:
    arguments = arguments_for_hydra(["-m", f"resume={folder}"])
    overrides = OverridesParser.create().parse_overrides(arguments[1:])
    assert [(o.key_or_group, o.value()) for o in overrides] == [("resume", folder), ("hydra.run.dir", folder)]


def test_only_folders_of_the_run_itself_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work/outputs/toy/run").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(SystemExit), reported_errors(tmp_path / "work/outputs/toy/run"):
        raise ValueError("an error")
    assert (tmp_path / "work").is_dir()
    assert not (tmp_path / "work/outputs").exists()


@pytest.mark.parametrize(
    ("model", "prune"), [("ptmt", True), *((n, False) for n in ("bert_ml", "hbgl", "gacaps", "hpt"))]
)
def test_peers_do_not_prune_by_default(model: str, prune: bool) -> None:
    with initialize_config_dir(str(ROOT_DIR / "conf"), version_base="1.3"):
        assert compose("config", [f"model={model}"]).model.prune is prune


@pytest.mark.parametrize("argument", ["test=no", "model.prune=off", "keep_checkpoints=yess", "impl.compile='true'"])
def test_a_switch_is_true_or_false(argument: str) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: expected true or false$"):
        check_overrides([argument])
    check_overrides([argument.split("=")[0] + "=True", "trainer.deterministic=warn", "test=true,false"])


def test_level_weights_may_be_a_list() -> None:
    arguments = arguments_for_hydra(["loss.level_weights=[1,1.5,2]"])
    check_overrides(["loss.level_weights=[1,1.5,2]"])
    check_overrides(arguments)
    with initialize_config_dir(str(ROOT_DIR / "conf"), version_base="1.3"):
        assert compose("config", arguments).loss.level_weights == [1, 1.5, 2]
        assert compose("config", ["loss.level_weights.step=0.25"]).loss.level_weights == {"first": 1.0, "step": 0.25}


def test_own_data_are_named_by_their_folder() -> None:
    with initialize_config_dir(str(ROOT_DIR / "conf"), version_base="1.3"):
        names = [
            compose("config", ["dataset=jsonl", *more]).dataset.name
            for more in (["dataset.path=/data/my topics/"], ["dataset.path=/a/b", "dataset.name=c"], [])
        ]
    assert names == ["my topics", "c", "jsonl"]


def test_resume_needs_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("resume: null")
    with pytest.raises(
        ValueError, match=r"resume='.*': no checkpoints/last.ckpt there; expected the folder of an earlier"
    ):
        resumed(OmegaConf.create({"resume": str(tmp_path)}), tmp_path)


A_WARM_START = (
    r"^resume='(.*)': that run is finished and kept no checkpoints \(keep_checkpoints=true does\); its weights are in "
    r"model/: begin a new run from them by its own command with `.* backbone=bert backbone.name=\1/model`$"
)


def test_a_finished_run_without_checkpoints_is_not_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "result.json").write_text("{}")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.raises(ValueError, match=A_WARM_START):
        resumed(OmegaConf.create({"resume": None}), tmp_path)


@pytest.mark.parametrize("value", ["/data/run=1", "/data/données", "/data/final (2)", "a/epoch=3.ckpt", "~/data"])
@pytest.mark.parametrize("key", ["dataset.path", "backbone.name", "hydra.run.dir", "cache_dir"])
def test_paths_may_hold_characters_of_hydras_grammar(key: str, value: str) -> None:
    [argument] = arguments_for_hydra([f"{key}={value}"])
    override = OverridesParser.create().parse_override(argument)
    assert (override.key_or_group, override.value()) == (key, str(Path(value).expanduser()))


@pytest.mark.parametrize("argument", ["dataset.path=/plain/path", "seed=range(3)", "loss=wasl,bce", "seed=1,2"])
def test_what_hydra_can_read_is_left_as_it_is(argument: str) -> None:
    assert arguments_for_hydra([argument]) == [argument]
