"""Conversion of the user's arguments to those that Hydra takes, and of configurations to arguments or plain types."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from ptmt_lightning.launch.composing import Kind, choices, composed, config_folders, kind_of
from ptmt_lightning.launch.conf import conf_folder
from ptmt_lightning.launch.program import typed_program
from ptmt_lightning.run_folder.paths import LAST_CHECKPOINT, RunFolder
from ptmt_lightning.utils.files import write_text
from ptmt_lightning.utils.secrets import in_environment, is_secret, masked

CONF = conf_folder()


def hydra_parser() -> argparse.ArgumentParser:
    """Return Hydra's own parser of the command line; its messages call the program as the user does."""
    parser = get_args_parser()
    parser.prog = " ".join(typed_program())
    return parser


def arguments_for_hydra(arguments: Sequence[str]) -> list[str]:
    """Return the user's arguments in the form that Hydra takes: options first, as it reads no override behind them.

    Texts that mean something else in Hydra's grammar are quoted, wherever the configuration has a text: paths, names.
    A leading ``~`` in them is expanded. Secrets move to the environment. The folder of ``resume=FOLDER`` becomes the
    run's folder. A list for ``loss.level_weights`` replaces the default mapping, with which Hydra would merge it.

    Raises:
        ValueError: ``resume`` names a checkpoint that a run can't go on from.
    """
    options = hydra_parser().parse_intermixed_args(arguments)
    result = [argument for argument in arguments if argument not in options.overrides]
    config = _chosen_config(options)
    is_sweep = options.multirun or any(o == "hydra.mode=MULTIRUN" or o.startswith("search=") for o in options.overrides)
    for argument in options.overrides:
        if argument.startswith("resume=") and argument != "resume=null":
            folder = _run_folder(argument.removeprefix("resume="))
            result += [f"resume={quoted(folder)}", f"hydra.run.dir={quoted(folder)}"]
        elif argument.startswith("loss.level_weights=["):
            result += ["~loss.level_weights", f"+{argument}"]
        else:
            result.append(_readable(argument, config, is_sweep=is_sweep))
    return result


def _run_folder(typed: str) -> str:
    """Return the folder of the run that the user means, who may have given its newest checkpoint.

    Raises:
        ValueError: it is another checkpoint.
    """
    value = _parsed(f"resume={typed}")
    typed = value._value.text if value and isinstance(value._value, QuotedString) else typed
    path = Path(typed).expanduser()
    if path.suffix == ".ckpt" and path.name != LAST_CHECKPOINT:
        raise ValueError(
            f"resume={typed!r}: a run goes on from its newest checkpoint; give the run's folder, {path.parent.parent}"
        )
    inside = {RunFolder(path.parent.parent).last_checkpoint: path.parent.parent}
    inside |= dict.fromkeys((RunFolder(path.parent).checkpoints, RunFolder(path.parent).config), path.parent)
    return str(inside.get(path, path))


def _chosen_config(options: argparse.Namespace) -> DictConfig | None:
    """Return the configuration of the chosen groups; None where it can't be composed, which is reported later."""
    if options.config_path or options.shell_completion:
        return None
    try:
        folders = config_folders(options)
        chosen = [o for a in options.overrides if (o := _parsed(a)) and choices(folders, o.key_or_group)]
        return composed(chosen_groups(chosen), tuple(folders), options.config_name or "config")
    except (HydraException, ValueError):
        return None


def chosen_groups(overrides: Sequence[Override]) -> tuple[str, ...]:
    """Return the overrides of groups that all jobs of a sweep share, as the user typed them."""
    return tuple(str(override.input_line) for override in overrides if not override.is_sweep_override())


def _parsed(argument: str) -> Override | None:
    """Return an argument as Hydra reads it, None if it can't."""
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException:
        return None


def _readable(argument: str, config: DictConfig | None, *, is_sweep: bool) -> str:
    """Return an argument that Hydra's grammar reads as the user means it, with secrets put into the environment."""
    typed, separator, value = argument.partition("=")
    key = typed.lstrip("+~")
    if not separator or typed.startswith("~") or not re.fullmatch(r"[\w.$-]+", key):
        return argument
    kind = Kind.OPEN if config is None else kind_of(config, key)
    parsed = _parsed(argument)
    if is_secret(key, value):
        values = [value] if not (is_sweep and "," in value) else _parts(value)
        names = [key] if len(values) == 1 else [f"{key}_{number}" for number in range(len(values))]
        hidden = [in_environment(name, _unquoted(part)) for name, part in zip(names, values, strict=True)]
        return f"{typed}={','.join(quoted(reference) for reference in hidden)}"
    if kind is not Kind.TEXT:
        is_open = kind is Kind.OPEN and parsed is None
        return f"{typed}={quoted(_expanded(value))}" if is_open else argument
    values = _parts(value) if is_sweep else [value]
    if len(values) > 1 and re.search(r"[/~]", value):
        sys.stderr.write(
            f"note: {argument}: read as {len(values)} values of the sweep; a value that holds a comma needs quotes, as "
            f"in {typed}=\"'A,B'\"\n"
        )
    if not any(_means_something_else(part) for part in values):
        return argument
    if key.startswith("trainer.") and value[:1] in "[{":  # an object in the place of a name
        return argument
    if is_sweep and re.match(r"(choice|range|interval|glob|sort|shuffle|tag)\(", value) and parsed is not None:
        return argument
    return f"{typed}={','.join(quoted(_expanded(_unquoted(part))) for part in values)}"


def _means_something_else(value: str) -> bool:
    """Return whether Hydra can't read a value, or reads something else than the text that stands there."""
    parsed = _parsed(f"key={value}")
    if parsed is None or parsed.is_sweep_override():
        return True
    read = parsed._value
    return not (read is None or isinstance(read, (str, QuotedString)))


def _parts(value: str) -> list[str]:
    """Return the values between the commas of a sweep; quotes and brackets keep theirs."""
    return re.findall(r"(?:'[^']*'|\"[^\"]*\"|\([^)]*\)|\[[^\]]*\]|[^,])+", value)


def _unquoted(value: str) -> str:
    """Return the text of a value that may be in quotes of Hydra's grammar."""
    value = value.strip()
    parsed = _parsed(f"key={value}")
    read = parsed._value if parsed is not None and not parsed.is_sweep_override() else None
    return read.text if isinstance(read, QuotedString) else value


def _expanded(value: str) -> str:
    return str(Path(value).expanduser()) if value.startswith("~") else value


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


@contextmanager
def _references_to_environment_kept() -> Iterator[None]:
    """Let ``${oc.env:NAME}`` stand for itself within this block."""
    from omegaconf.resolvers import oc

    OmegaConf.register_new_resolver("oc.env", lambda *words: f"${{oc.env:{','.join(map(str, words))}}}", replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def mask_file(path: Path) -> None:
    """Mask the secrets in a YAML file of settings that Hydra wrote."""
    content = OmegaConf.to_container(OmegaConf.load(path))
    if masked(content) != content:
        write_text(path, OmegaConf.to_yaml(OmegaConf.create(masked(content))))


def written(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as it may be written down: plain types, all references resolved, and no secrets.

    What refers to the environment stays a reference, so that a run that goes on finds it there again; passwords that
    stand in the configuration itself are masked.

    Raises:
        ValueError: a required setting has no value.
    """
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ValueError(f"{missing[0]} is not set; add {missing[0]}=VALUE to the command line")
    with _references_to_environment_kept():
        content = masked(OmegaConf.to_container(config, resolve=True))
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}
