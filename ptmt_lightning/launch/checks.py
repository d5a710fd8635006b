"""Checks of the command line, made before anything is built."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from ptmt_lightning.data.kinds import fitting_dataset, is_sample
from ptmt_lightning.launch.composing import Kind, choices, composed, config_folders, groups, keys, kind_of
from ptmt_lightning.launch.overrides import chosen_groups, hydra_parser
from ptmt_lightning.launch.program import typed_program
from ptmt_lightning.launch.suggestions import hint, key_meant, nearest
from ptmt_lightning.run_folder.paths import LENGTHS


def check_overrides(arguments: Sequence[str]) -> None:
    """Refuse a misspelt key or choice on the command line, and suggest what was meant.

    Hydra refuses most of them, too, but suggests nothing. Keys and choices are not checked with ``--config-path``,
    which puts another folder in the place of ``conf``, or with ``hydra.searchpath``.

    Args:
        arguments: the arguments as typed after ``run.py``. The folder of ``--config-dir`` adds groups and choices.

    Raises:
        ValueError: a key, choice or folder does not exist, a switch is neither true nor false, or beside ``resume``
            stands more than the length of the training.
    """
    options = hydra_parser().parse_intermixed_args(arguments)
    if options.config_path or options.shell_completion:  # arguments of shell completion are no overrides
        return
    folders = config_folders(options)
    overrides = _parsed([argument for argument in options.overrides if "=" in argument])
    ours = [o for o in overrides if not o.key_or_group.startswith("hydra")]
    if any(o.key_or_group == "resume" for o in ours) and not {o.key_or_group for o in ours} <= {"resume", *LENGTHS}:
        raise ValueError(
            f"resume goes on with the run's own configuration; leave out all other settings but {' and '.join(LENGTHS)}"
        )
    if ours and not any(o.key_or_group == "hydra.searchpath" for o in overrides):
        for override in ours:
            if known := choices(folders, override.key_or_group):
                _check_choice(override, known)
        every = [override for override in overrides if choices(folders, override.key_or_group)]
        config = composed(chosen_groups(every), tuple(folders), options.config_name or "config")
        _check_keys(ours, config, folders)
        _check_dataset(ours, config)


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


def _check_keys(overrides: list[Override], config: DictConfig, folders: list[Path]) -> None:
    """Refuse a misspelt key.

    Args:
        overrides: the settings that the user typed.
        config: of the groups that they choose.
        folders: ``conf``, and behind it further folders that add groups and choices.

    Raises:
        ValueError: names the override, and the key that was likely meant.
    """
    known = set(keys(config))
    for override in overrides:
        key = override.key_or_group
        if key not in known and not choices(folders, key) and not override.is_add():
            meant = key_meant(key, known | groups(folders))
            help_ = " ".join([*typed_program(), "--help"])
            raise ValueError(
                f"{override.input_line}: no key {key!r} in the configuration"
                + (hint(meant) or f"; {help_} lists the groups, and {help_[:-6]}--cfg job all keys")
            )
        is_of_trainer = key.startswith("trainer.")  # whose switches may take more, such as trainer.deterministic=warn
        if isinstance(override.value(), str) and not is_of_trainer and kind_of(config, key) is Kind.SWITCH:
            raise ValueError(f"{override.input_line}: expected true or false")


def _check_dataset(overrides: list[Override], config: DictConfig) -> None:
    """Refuse a path of data without a word on what they are: the built-in sample would be made or looked for there.

    Raises:
        ValueError: names the data set to choose.
    """
    typed = {override.key_or_group: override for override in overrides}
    path, kind = typed.get("dataset.path"), OmegaConf.select(config, "dataset._target_")
    if path is None or "dataset" in typed or path.is_sweep_override() or "SampleDataModule" not in str(kind):
        return
    value = str(path.value())
    if not is_sample(Path(value).expanduser()) and value != config.dataset.path:
        raise ValueError(
            f"{path.input_line}: without dataset=, the built-in sample would be taken; add {fitting_dataset(value)}"
        )


def _check_choice(override: Override, known: list[str]) -> None:
    values = override.sweep_string_iterator() if override.is_sweep_override() else [override.value()]
    for value in [str(value) for value in values]:
        if value not in [*known, "None"]:
            raise ValueError(
                f"{override.input_line}: no {override.key_or_group} {value!r}{hint(nearest(value, known)) or '.'} "
                f"Known: {', '.join(known)}"
            )


def _parsed(arguments: Sequence[str]) -> list[Override]:
    """Return arguments as Hydra reads them.

    Raises:
        ValueError: names the one that Hydra can't read.
    """
    parser, overrides = OverridesParser.create(), []
    for argument in arguments:
        try:
            overrides.append(parser.parse_override(argument))
        except HydraException as error:
            key = argument.partition("=")[0]
            raise ValueError(
                f"{argument}: can't be read ({str(error).splitlines()[0]}); put a text into quotes, as in "
                f"{key}=\"'TEXT'\""
            ) from error
    return overrides
