"""Conversion of the user's arguments to those that Hydra takes, and of configurations to arguments or plain types."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from ptmt_lightning.launch.conf import conf_folder
from ptmt_lightning.launch.program import typed_program

CONF = conf_folder()
_PATHS = re.compile(r"(^|\.)(path|cache_dir|dir|folder)$|^backbone\.name$")  # keys whose values are paths


def hydra_parser() -> argparse.ArgumentParser:
    """Return Hydra's own parser of the command line; its messages call the program as the user does."""
    parser = get_args_parser()
    parser.prog = " ".join(typed_program())
    return parser


def arguments_for_hydra(arguments: Sequence[str]) -> list[str]:
    """Return the user's arguments in the form that Hydra takes: options first, as it reads no override behind them.

    The folder of ``resume=FOLDER`` is quoted and becomes the run's folder. A list for ``loss.level_weights`` replaces
    the default mapping, with which Hydra would merge it.
    """
    overrides = hydra_parser().parse_intermixed_args(arguments).overrides
    result = [argument for argument in arguments if argument not in overrides]
    for argument in overrides:
        if argument.startswith("resume=") and argument != "resume=null":
            folder = argument.removeprefix("resume=")
            result += [f"resume={quoted(folder)}", f"hydra.run.dir={quoted(folder)}"]
        elif argument.startswith("loss.level_weights=["):
            result += ["~loss.level_weights", f"+{argument}"]
        else:
            result.append(_readable(argument))
    return result


def _readable(argument: str) -> str:
    """Return an argument that Hydra's grammar can read: a path with characters of the grammar's own is quoted."""
    key, _, value = argument.partition("=")
    if not _PATHS.search(key):
        return argument
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        return f"{key}={quoted(value)}"
    return argument


def config_options(hydra: DictConfig) -> list[str]:
    """Return the options that make a new command use the same main configuration and folders as this one.

    The list is empty for ``conf/config.yaml``.

    Args:
        hydra: Hydra's own part of the present configuration.
    """
    options = [] if hydra.job.config_name == "config" else [f"--config-name={hydra.job.config_name}"]
    for source in hydra.runtime.config_sources:
        if source.provider == "command-line":
            options.append(f"--config-dir={source.path}")
        elif source.provider == "main" and Path(source.path) != CONF:
            options.append(f"--config-path={source.path}")
    return options


def quoted(value: object) -> str:
    """Return a value as Hydra's grammar writes it: a text in quotes, whatever it contains; anything else as it is."""
    return QuotedString(str(value), Quote.single).with_quotes() if isinstance(value, str) else str(value)


def plain(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain types, with all references resolved.

    Raises:
        ValueError: a required setting has no value.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ValueError(f"{missing[0]} is not set; add {missing[0]}=VALUE to the command line")
    content = OmegaConf.to_container(config, resolve=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}
