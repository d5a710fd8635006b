"""From the command line to a checked configuration, before anything is built."""

from __future__ import annotations

import difflib
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import CompactHydraException, HydraException, InstantiationException
from hydra.types import RunMode
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from omegaconf import DictConfig, Node, OmegaConf
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from ptmt_lightning.run_folder.checkpoint_files import has_checkpoint
from ptmt_lightning.run_folder.finished import NO_CHOICE

CONF = Path(__file__).parents[1] / "conf"


def run_name() -> str:
    """Of a run's folder: the time, and six characters that keep two runs of one microsecond apart.

    All ranks that torchrun or srun started get the same, and again after a restart.
    """
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")  # several runs in one step
    if "SLURM_STEP_ID" in os.environ and not interactive:
        return f"slurm-{os.environ['SLURM_JOB_ID']}-{os.environ['SLURM_STEP_ID']}"
    name = f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}-{secrets.token_hex(3)}"
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
        return store.compare_set("ptmt_lightning/run_name", "", name).decode()  # the first rank's
    return name


_UNNAMED = ("dataset=", "model=", "dataset.name", *NO_CHOICE)  # the first three begin every name


def run_choices() -> str:
    """What was chosen on the command line, as typed, for the name that W&B shows."""
    typed = HydraConfig.get().overrides.task
    return " ".join(argument for argument in typed if not argument.lstrip("+~").startswith(_UNNAMED))


# When this is imported: a launcher may compose the configuration in a process in which run.py is not the main script.
OmegaConf.register_new_resolver("folder_name", lambda path: Path(path).name, replace=True)
OmegaConf.register_new_resolver("run_name", run_name, use_cache=True, replace=True)
OmegaConf.register_new_resolver("run_choices", run_choices, replace=True)


def is_restarted(run_dir: Path) -> bool:
    """Whether SLURM or torchrun has started this run before, and it left something to go on from, or its result."""
    restarts = (os.environ.get(name) for name in ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"))
    left = has_checkpoint(run_dir / "checkpoints") or (run_dir / "result.json").exists()
    return left and any(int(count or 0) for count in restarts)


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


def check_launcher(trainer: Trainer) -> None:
    """Refuse a sweep within one process whose runs start ranks: Lightning starts those with the whole command.

    Raises:
        ValueError: says what to leave out.
    """
    starts_ranks = isinstance(trainer.strategy.launcher, _SubprocessScriptLauncher)
    if starts_ranks and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise ValueError("-m on several devices: expected a process a job; leave out hydra/launcher")


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


def resumed(config: DictConfig, run_dir: Path) -> DictConfig:
    """The configuration of the run in ``run_dir``, where ``config.resume`` or a restart asks for it; else ``config``.

    Raises:
        ValueError: the folder holds no run, or was moved.
    """
    if config.resume is None:
        if not is_restarted(run_dir):
            return config
        config.resume = str(run_dir)
    saved, folder = run_dir / "config.yaml", run_dir / "checkpoints"
    if (run_dir / "result.json").exists() and not has_checkpoint(folder):
        raise ValueError(
            f"resume={str(run_dir)!r}: that run is finished and kept no checkpoints; its weights are in model/"
        )
    for name, found in (("config.yaml", saved.exists()), ("checkpoints/last.ckpt", has_checkpoint(folder))):
        if not found:
            raise ValueError(f"resume={str(run_dir)!r}: no {name} there; expected the folder of an earlier run")
    earlier = OmegaConf.load(saved)
    assert isinstance(earlier, DictConfig)
    if Path(earlier.run.dir) != run_dir:
        raise ValueError(
            f"resume={str(run_dir)!r}: that run was made in {earlier.run.dir!r}; move the folder back there"
        )
    earlier.resume = config.resume
    return earlier


class JobNotRunError(CompactHydraException):
    """A job of a sweep was not started, or ended with the sweep, for no fault of its own."""


@contextmanager
def compact_errors() -> Iterator[None]:
    """In a plugin of Hydra's: let it print an error that the user can mend, and no traceback."""
    try:
        yield
    except ValueError as error:
        raise CompactHydraException(f"error: {error}") from error


def _remove_empty(run_dir: Path) -> None:
    """Remove an empty run folder, and above it what it leaves empty, up to the working folder."""
    for folder in (run_dir, *run_dir.parents):
        if folder == Path.cwd() or folder in Path.cwd().parents or any(folder.iterdir()):
            return
        folder.rmdir()


@contextmanager
def user_errors(run_dir: Path | None = None) -> Iterator[None]:
    """End the program with one line, no traceback and no empty run folder for an error that the user can mend."""
    try:
        yield
    except (ValueError, HydraException, MisconfigurationException) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if not isinstance(cause, (ValueError, HydraException, MisconfigurationException)):
            raise
        if run_dir is not None:
            _remove_empty(run_dir)
        sys.exit(f"error: {cause}")
