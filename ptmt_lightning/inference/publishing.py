"""Copies of a saved model: in another folder, or on a model hub."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from ptmt_lightning.inference.model_folder import PROGRAM_FILE, WANTED, ModelFolder
from ptmt_lightning.utils.files import new_folder

CARD = "README.md"


def copy_model(folder: ModelFolder, target: Path) -> None:
    """Copy the files of a saved model, and no others, into a new folder; after an error nothing is left of it.

    Args:
        folder: description of the saved model.
        target: the folder to be made.

    Raises:
        ValueError: there is such a folder or file already, or the model's own folder has gone meanwhile.
    """
    if target.exists():
        raise ValueError(f"save_directory={str(target)!r}: there already; remove it, or give another name")
    if not folder.settings_file.is_file():
        raise ValueError(
            f"{folder.path}: the model's files have gone since it was opened; restore them, or train again"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(target) as temporary:
        for path in _matching(folder.path.iterdir(), [*WANTED, PROGRAM_FILE, CARD]):
            shutil.copyfile(path, temporary / path.name)  # of a hub's cache, what a link points to


def _matching(paths: Iterable[Path], patterns: Iterable[str]) -> list[Path]:
    return [path for path in paths if path.is_file() and any(fnmatch(path.name, pattern) for pattern in patterns)]


def push_model(folder: ModelFolder, name: str, *, private: bool = False) -> str:
    """Upload a saved model, its card included, to a model hub, and return its address there.

    Files of an earlier model in the same repository are replaced or removed; what else lies there stays.

    Args:
        folder: description of the saved model.
        name: of the hub's repository, ``OWNER/NAME``; it is made where there is none.
        private: where the repository is made, whether it is for its owner alone.

    Raises:
        ValueError: the hub did not take the model; the message says why.
    """
    from huggingface_hub import HfApi  # imported only here, as local folders do not need it
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        HFValidationError,
        HTTPError,  # the hub client's own
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    api = HfApi()
    try:
        url = api.create_repo(name, private=private or None, exist_ok=True)
        api.upload_folder(
            repo_id=name, folder_path=folder.path, allow_patterns=[*WANTED, CARD],
            # An exported file of an earlier model would be taken for this one's.
            delete_patterns=[*WANTED, PROGRAM_FILE],
            commit_message="Model of ptmt_lightning",
        )  # fmt: skip
    except (HFValidationError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{name}: the hub did not take it: {reason}; check the name, and log in with HF_TOKEN"
        ) from error
    return str(url)
