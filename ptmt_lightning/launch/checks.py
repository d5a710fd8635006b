"""Checks of the command line, made before anything is built."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra import compose, version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, Node, OmegaConf

from ptmt_lightning.launch.conf import conf_folder
from ptmt_lightning.launch.overrides import hydra_parser
from ptmt_lightning.launch.program import typed_program


def check_overrides(arguments: Sequence[str]) -> None:
    """Refuse a misspelt key or choice on the command line, and suggest the nearest valid one.

    Hydra refuses most of them, too, but suggests nothing. Keys and choices are not checked with ``--config-path``,
    which puts another folder in the place of ``conf``, or with ``hydra.searchpath``.

    Args:
        arguments: the arguments as typed after ``run.py``. The folder of ``--config-dir`` adds groups and choices.

    Raises:
        ValueError: a key, choice or folder does not exist, a switch is neither true nor false, or ``resume`` is not the
            only setting.
    """
    options = hydra_parser().parse_intermixed_args(arguments)
    if options.config_path or options.shell_completion:  # arguments of shell completion are no overrides
        return
    added = [] if options.config_dir is None else [_config_dir(options.config_dir)]
    overrides = OverridesParser.create().parse_overrides([a for a in options.overrides if "=" in a])
    ours = [o for o in overrides if not o.key_or_group.startswith("hydra")]
    if len(ours) > 1 and any(o.key_or_group == "resume" for o in ours):
        raise ValueError("resume goes on with the run's own configuration; leave out all other settings")
    if ours and not any(o.key_or_group == "hydra.searchpath" for o in overrides):
        _check_keys(ours, [conf_folder(), *added], options.config_name or "config")


def check_multirun(arguments: Sequence[str]) -> None:
    """Refuse a sweep that torchrun or srun has started several times, as each process would run the whole sweep.

    Raises:
        ValueError: there are several such processes; the message says what to start instead.
    """
    tasks = max(int(os.environ.get(name) or 1) for name in ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS"))
    sweeps = any(a in ("-m", "--multirun", "hydra.mode=MULTIRUN") or a.startswith("search=") for a in arguments)
    if tasks > 1 and sweeps and "hydra.mode=RUN" not in arguments:
        raise ValueError(
            f"a sweep was started {tasks} times (torchrun, srun): expected once; start `{' '.join(typed_program())}` "
            "itself, whose jobs start their own ranks"
        )


def _check_keys(overrides: list[Override], folders: list[Path], config_name: str) -> None:
    """Refuse a misspelt key or choice.

    Args:
        overrides: the settings that the user typed.
        folders: ``conf``, and behind it further folders that add groups and choices.
        config_name: name of the main configuration.

    Raises:
        ValueError: names the override and the nearest valid key or choice.
    """
    groups = {o.key_or_group: known for o in overrides if (known := _choices(folders, o.key_or_group))}
    chosen = [override for override in overrides if override.key_or_group in groups]
    for override in chosen:
        _check_choice(override, groups[override.key_or_group])
    composed = _compose([str(o.input_line) for o in chosen if not o.is_sweep_override()], folders, config_name)
    keys = set(_keys(composed))
    for override in overrides:
        key = override.key_or_group
        if key not in keys and key not in groups and not override.is_add():
            near = difflib.get_close_matches(key, sorted(keys | _groups(folders)), n=1, cutoff=0)[0]
            raise ValueError(f"{override.input_line}: no key {key!r} in the configuration; did you mean {near!r}?")
        is_of_trainer = key.startswith("trainer.")  # whose switches may take more, such as trainer.deterministic=warn
        if key in keys and isinstance(override.value(), str) and not is_of_trainer and _is_switch(composed, key):
            raise ValueError(f"{override.input_line}: expected true or false")


def _config_dir(name: str) -> Path:
    folder = Path(name).absolute()
    if not folder.is_dir():
        raise ValueError(f"--config-dir {name}: no such folder; give one that holds groups, as in dataset/NAME.yaml")
    return folder


def _groups(folders: Sequence[Path]) -> set[str]:
    return {path.parent.relative_to(folder).as_posix() for folder in folders for path in folder.glob("*/**/*.yaml")}


def _choices(folders: Sequence[Path], group: str) -> list[str]:
    names = {path.stem for folder in folders for path in (folder / group).glob("*.yaml")}
    return sorted(name for name in names if not name.startswith("_"))  # a file such as _base.yaml is no choice


def _check_choice(override: Override, known: list[str]) -> None:
    values = override.sweep_string_iterator() if override.is_sweep_override() else [override.value()]
    for value in [str(value) for value in values]:
        if value not in [*known, "None"]:
            near = difflib.get_close_matches(value, known, n=1, cutoff=0)[0]
            raise ValueError(
                f"{override.input_line}: no {override.key_or_group} {value!r}; did you mean {near!r}? "
                f"Known: {', '.join(known)}"
            )


def _compose(overrides: list[str], folders: Sequence[Path], config_name: str) -> DictConfig:
    """Return the configuration that Hydra composes from ``conf`` and the folder of ``--config-dir``."""
    conf, *added = folders
    search_path = create_config_search_path(str(conf))
    for folder in added:
        search_path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    version.setbase("1.3")
    GlobalHydra.instance().clear()
    try:
        Hydra.create_main_hydra2("check", search_path)
        return compose(config_name, overrides)
    finally:
        GlobalHydra.instance().clear()


def _keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Yield all dotted keys of a configuration, those of groups included."""
    for name in map(str, config):
        key = f"{prefix}{name}"
        yield key
        node = config._get_node(name)  # does not resolve interpolations
        if isinstance(node, DictConfig):
            yield from _keys(node, f"{key}.")


def _is_switch(config: DictConfig, key: str) -> bool:
    group, _, name = key.rpartition(".")
    parent = OmegaConf.select(config, group) if group else config
    node = parent._get_node(name) if isinstance(parent, DictConfig) else None
    return isinstance(node, Node) and isinstance(node._value(), bool)
