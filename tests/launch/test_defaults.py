"""The command line and Python have the same defaults: what ``conf/`` says is what signatures say."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT_DIR
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, instantiate
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from ptmt_lightning.data.tables.options import TableOptions
from ptmt_lightning.launch.run_name import register_resolvers
from ptmt_lightning.models.base import HTCModel
from ptmt_lightning.training.trainer import make_trainer

SYSTEMS = ("ptmt", "bert", "bert_ml", "hbgl", "gacaps", "hpt", "frozen")


def composed(*arguments: str) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(ROOT_DIR / "conf"), version_base="1.3"):
        return compose("config", list(arguments))


def signature_defaults(target: type) -> dict[str, Any]:
    """Return the defaults of a constructor and of those that it hands settings on to."""
    defaults: dict[str, Any] = {}
    for kind in reversed(target.__mro__):
        if "__init__" in vars(kind):
            for name, parameter in inspect.signature(kind).parameters.items():
                if parameter.default is not inspect.Parameter.empty:
                    defaults[name] = parameter.default
    return defaults


def assert_same_defaults(node: DictConfig) -> int:
    """Compare what the node says with the signature of its class; gives how many values were compared."""
    known = signature_defaults(get_class(node._target_))
    compared = 0
    for key in node:
        raw = OmegaConf.to_container(node, resolve=False)
        assert isinstance(raw, dict)
        if key in known and not (isinstance(raw[key], str) and "${" in raw[key]):
            default = list(known[key]) if isinstance(known[key], tuple) else known[key]  # YAML has no tuples
            assert raw[key] == default, f"{node._target_}.{key}: {raw[key]} in conf/, {known[key]} in the signature"
            compared += 1
    return compared


@pytest.mark.parametrize("system", SYSTEMS)
def test_systems(system: str) -> None:
    config = composed(f"model={system}")
    assert assert_same_defaults(config.model) >= 6
    kind = get_class(config.model._target_)
    assert issubclass(kind, HTCModel)
    assert kind.published_optimizer() == instantiate(config.optimizer)
    ours, theirs = kind.published_loss(), instantiate(config.loss)
    assert type(ours) is type(theirs)
    assert {name: getattr(ours, name) for name in config.loss if name != "_target_"} == {
        name: value for name, value in OmegaConf.to_container(config.loss).items() if name != "_target_"
    }


def test_tfidf() -> None:
    assert assert_same_defaults(composed("model=tfidf").model) == 12


@pytest.mark.parametrize("loss", ["wasl", "bce", "mean_bce", "cross_entropy", "zmlce", "conditional_softmax"])
def test_losses(loss: str) -> None:
    config = composed(f"loss={loss}")
    assert assert_same_defaults(config.loss) == len(config.loss) - 1


def test_data_backbones_and_optimizer() -> None:
    assert assert_same_defaults(composed("dataset=jsonl").dataset) >= 4
    assert assert_same_defaults(composed("backbone=bert").backbone) >= 6
    assert assert_same_defaults(composed("backbone=tiny").backbone) >= 7
    assert assert_same_defaults(composed().optimizer) == 5


def test_tables() -> None:
    config, defaults = composed("dataset=table").dataset, TableOptions()
    names = {field.name for field in fields(TableOptions)} - {"prefix"}
    assert {name: config[name] for name in names} == {name: getattr(defaults, name) for name in names}


def test_trainer_and_callbacks(tmp_path: Path) -> None:
    config = composed("trainer=cpu")
    assert assert_same_defaults(config.callbacks.last_checkpoint) == 1
    trainer = make_trainer(tmp_path, accelerator="cpu")
    settings = config.trainer
    assert trainer.max_epochs == settings.max_epochs
    for name in ("gradient_clip_val", "num_sanity_val_steps", "log_every_n_steps", "accumulate_grad_batches"):
        assert getattr(trainer, name) == settings[name]
    kinds = {type(callback).__name__ for callback in trainer.callbacks}  # type: ignore[attr-defined]
    assert {node._target_.rsplit(".")[-1] for node in config.callbacks.values() if node} - {"RichProgressBar"} <= kinds
    [stopping] = [c for c in trainer.callbacks if isinstance(c, EarlyStopping)]  # type: ignore[attr-defined]
    assert (stopping.monitor, stopping.mode, stopping.patience) == (config.monitor, config.mode, 10)
    [best] = [c for c in trainer.callbacks if isinstance(c, ModelCheckpoint)]  # type: ignore[attr-defined]
    assert (best.monitor, best.mode, best.filename) == (
        config.monitor,
        config.mode,
        config.callbacks.checkpoint.filename,
    )


def test_the_paper_as_printed() -> None:
    config = composed("experiment=paper")
    assert (config.model.alpha, config.model.alpha_l1, config.model.label_init) == (0.7, 1, "random")
    assert (config.optimizer.new_rate_factor, config.callbacks.early_stopping.patience) == (1, 10)


def test_table_4_is_searched_and_nothing_else() -> None:
    register_resolvers()
    with initialize_config_dir(str(ROOT_DIR / "conf"), version_base="1.3"):
        config = compose("config", ["search=table4"], return_hydra_config=True)
    assert dict(config.hydra.sweeper.params) == {
        "model.alpha": "interval(0.7,1.0)", "loss.gamma_pos": "range(1,11)", "loss.gamma_neg": "range(1,11)",
        "loss.margin": "interval(0.02,0.1)", "optimizer.learning_rate": "tag(log,interval(1e-6,1e-2))",
        "model.num_prompt_tokens": "range(2,11)", "dataset.batch_size": "range(2,33)",
    }  # fmt: skip
    paper = composed("experiment=paper")
    for key in ("alpha_l1", "label_init", "p_label"):
        assert config.model[key] == paper.model[key]
    assert config.optimizer == paper.optimizer
    assert config.hydra.sweeper.sampler == "gp"
