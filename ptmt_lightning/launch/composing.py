"""The configuration that the chosen groups give, before any other setting: which keys there are, and of which kind."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import lru_cache
from pathlib import Path

from hydra import compose, version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ptmt_lightning.launch.conf import conf_folder


class Kind(Enum):
    """What the configuration holds under a key, which decides how its value on the command line is read."""

    TEXT = "text"
    SWITCH = "switch"  # true or false
    OPEN = "open"  # null, or a key that is added: any type
    OTHER = "other"  # a number, a list, a group


def config_folders(options: argparse.Namespace) -> list[Path]:
    """Return ``conf``, and behind it the folder of ``--config-dir``, which adds groups and choices.

    Raises:
        ValueError: there is no such folder.
    """
    if options.config_dir is None:
        return [conf_folder()]
    folder = Path(options.config_dir).absolute()
    if not folder.is_dir():
        raise ValueError(
            f"--config-dir {options.config_dir}: no such folder; give one that holds groups, as in dataset/NAME.yaml"
        )
    return [conf_folder(), folder]


def groups(folders: Sequence[Path]) -> set[str]:
    """Return the names of all groups."""
    return {path.parent.relative_to(folder).as_posix() for folder in folders for path in folder.glob("*/**/*.yaml")}


def choices(folders: Sequence[Path], group: str) -> list[str]:
    """Return the choices of a group; none if it is no group."""
    names = {path.stem for folder in folders for path in (folder / group).glob("*.yaml")}
    return sorted(name for name in names if not name.startswith("_"))  # a file such as _base.yaml is no choice


@lru_cache(maxsize=4)
def composed(chosen: tuple[str, ...], folders: tuple[Path, ...], config_name: str) -> DictConfig:
    """Return the configuration that Hydra composes, its own part ``hydra`` included.

    Args:
        chosen: overrides that choose of groups, such as ``loss=bce``.
        folders: of :func:`config_folders`.
        config_name: name of the main configuration.
    """
    conf, *added = folders
    search_path = create_config_search_path(str(conf))
    for folder in added:
        search_path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    version.setbase("1.3")
    GlobalHydra.instance().clear()
    try:
        Hydra.create_main_hydra2("check", search_path)
        return compose(config_name, list(chosen), return_hydra_config=True)
    finally:
        GlobalHydra.instance().clear()


def keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    """Yield all dotted keys of a configuration, those of groups included, but for Hydra's own."""
    for name in map(str, config):
        key = f"{prefix}{name}"
        if key == "hydra":
            continue
        yield key
        node = config._get_node(name)  # does not resolve references
        if isinstance(node, DictConfig):
            yield from keys(node, f"{key}.")


def kind_of(config: DictConfig, key: str) -> Kind:
    """Return the kind of a key by the value that it has without the command line."""
    node: Node | None = config
    for name in key.split("."):
        is_group = isinstance(node, DictConfig) and not node._is_none()
        child = node._get_node(name, validate_access=False) if is_group else None  # type: ignore[union-attr]
        node = child if isinstance(child, Node) else None
    if node is None:
        return Kind.OPEN
    if isinstance(node, DictConfig):
        return Kind.OPEN if node._is_none() else Kind.OTHER
    value = node._value()
    if node._is_interpolation() and "${run_name:" not in value:  # a name is given once a run, not for a look
        try:
            value = OmegaConf.select(config, key)
        except (OmegaConfBaseException, ValueError):  # what only Hydra knows, later: names and folders
            return Kind.TEXT
    if isinstance(value, str):
        return Kind.TEXT
    if isinstance(value, bool):
        return Kind.SWITCH
    return Kind.OPEN if value is None else Kind.OTHER
