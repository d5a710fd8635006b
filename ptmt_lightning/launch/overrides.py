"""Arguments of the command line: checked, before anything is built, and as Hydra takes them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from omegaconf import DictConfig, Node, OmegaConf

from ptmt_lightning.launch.conf import conf_folder

CONF = conf_folder()


def check_overrides(arguments: Sequence[str], conf: Path = CONF) -> None:
    """Refuse a misspelt key or choice on the command line, with the nearest valid one.

    Hydra refuses most of them, too, but does not say what was meant.

    Args:
        arguments: as typed after ``run.py``; options of Hydra's own, which start with a dash, are not looked at, nor is
            anything where they choose another configuration.

    Raises:
        ValueError: names the argument and the nearest valid one.
    """
    if any(a.startswith(("--config", "-cp", "-cn", "-cd")) for a in arguments):
        return  # another configuration, of which only Hydra knows
    overrides = OverridesParser.create().parse_overrides([a for a in arguments if "=" in a and not a.startswith("-")])
    groups = {str(path.relative_to(conf)) for path in conf.rglob("*") if path.is_dir()}
    ours = [o for o in overrides if not o.key_or_group.startswith("hydra")]
    if len(ours) > 1 and any(o.key_or_group == "resume" for o in ours):
        raise ValueError("resume goes on with the run's own configuration; leave out all other settings")
    for override in ours:
        if override.key_or_group in groups:
            _check_choices(override, sorted(path.stem for path in (conf / override.key_or_group).glob("*.yaml")))
    choices = [str(o.input_line) for o in ours if o.key_or_group in groups and not o.is_sweep_override()]
    composed = _compose(choices, conf)
    keys = set(_keys(composed))
    for override in ours:
        key = override.key_or_group
        if key not in keys | groups and not override.is_add():
            near = difflib.get_close_matches(key, sorted(keys | groups), n=1, cutoff=0)[0]
            raise ValueError(f"{override.input_line}: no key {key!r} in the configuration; did you mean {near!r}?")
        of_trainer = key.startswith("trainer.")  # some of whose take more: trainer.deterministic=warn
        if key in keys and isinstance(override.value(), str) and not of_trainer and _is_switch(composed, key):
            raise ValueError(f"{override.input_line}: expected true or false")


def _is_switch(config: DictConfig, key: str) -> bool:
    group, _, name = key.rpartition(".")
    parent = OmegaConf.select(config, group) if group else config
    node = parent._get_node(name) if isinstance(parent, DictConfig) else None
    return isinstance(node, Node) and isinstance(node._value(), bool)


def check_multirun(arguments: Sequence[str]) -> None:
    """Refuse a sweep that a launcher of ranks has started: each of its processes would run all of it.

    Raises:
        ValueError: says what to start instead.
    """
    tasks = max(int(os.environ.get(name) or 1) for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"))
    sweeps = any(a in ("-m", "--multirun", "hydra.mode=MULTIRUN") or a.startswith("search=") for a in arguments)
    if tasks > 1 and sweeps and "hydra.mode=RUN" not in arguments:
        raise ValueError(
            f"a sweep was started {tasks} times (torchrun, srun): expected once; start `python run.py` itself, whose "
            "jobs start their own ranks"
        )


def arguments_for_hydra(arguments: Sequence[str]) -> list[str]:
    """The arguments; ``resume=FOLDER`` quoted for Hydra's grammar, and that folder as the one to write to.

    A list of level weights takes the place of the mapping that stands there, which Hydra would merge it with.
    """
    result = []
    for argument in arguments:
        if argument.startswith("resume=") and argument != "resume=null":
            folder = argument.removeprefix("resume=")
            result += [f"resume={quoted(folder)}", f"hydra.run.dir={quoted(folder)}"]
        elif argument.startswith("loss.level_weights=["):
            result += ["~loss.level_weights", f"+{argument}"]
        else:
            result.append(argument)
    return result


def config_options(hydra: DictConfig) -> list[str]:
    """The options of a command line that choose another configuration than ``conf/config.yaml``."""
    options = [] if hydra.job.config_name == "config" else [f"--config-name={hydra.job.config_name}"]
    for source in hydra.runtime.config_sources:
        if source.provider == "command-line":
            options.append(f"--config-dir={source.path}")
        elif source.provider == "main" and Path(source.path) != CONF:
            options.append(f"--config-path={source.path}")
    return options


def quoted(value: object) -> str:
    """As a value of Hydra's grammar, a text with whatever it contains."""
    return QuotedString(str(value), Quote.single).with_quotes() if isinstance(value, str) else str(value)


def _check_choices(override: Override, known: list[str]) -> None:
    values = override.sweep_string_iterator() if override.is_sweep_override() else [override.value()]
    for value in [str(value) for value in values]:
        if value not in [*known, "None"]:
            near = difflib.get_close_matches(value, known, n=1, cutoff=0)[0]
            raise ValueError(
                f"{override.input_line}: no {override.key_or_group} {value!r}; did you mean {near!r}? "
                f"Known: {', '.join(known)}"
            )


def _compose(overrides: list[str], conf: Path) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        return compose("config", overrides)


def _keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """All dotted keys of a configuration, inner ones too."""
    for name in map(str, config):
        key = f"{prefix}{name}"
        yield key
        node = config._get_node(name)  # does not resolve interpolations
        if isinstance(node, DictConfig):
            yield from _keys(node, f"{key}.")


def plain(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain types.

    Raises:
        ValueError: a required value is missing.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ValueError(f"{missing[0]} is not set; add {missing[0]}=VALUE to the command line")
    content = OmegaConf.to_container(config, resolve=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}
