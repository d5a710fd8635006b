"""The command ``ptmt push``, which uploads a trained model to a model hub."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ptmt push`` to its parser."""
    parser.add_argument("model", metavar="MODEL", help="model/ folder of a run, or what ptmt export wrote")
    parser.add_argument("name", metavar="OWNER/NAME", help="of the hub's repository; made where there is none")
    parser.add_argument("--private", action="store_true", help="where the repository is made: for its owner alone")
    parser.set_defaults(run=_push)


def _push(options: argparse.Namespace) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        HFValidationError,
        HTTPError,
        LocalTokenNotFoundError,
    )

    from ptmt_lightning.inference.model_folder import PROGRAM_FILE, WANTED, ModelFolder

    folder = ModelFolder.open(options.model)
    api = HfApi()
    try:
        url = api.create_repo(options.name, private=options.private or None, exist_ok=True)
        api.upload_folder(
            repo_id=options.name, folder_path=folder.path, allow_patterns=[*WANTED, "README.md"],
            # An exported file of an earlier model would be taken for this one's.
            delete_patterns=[*WANTED, PROGRAM_FILE],
            commit_message="Model of ptmt_lightning",
        )  # fmt: skip
    except (HFValidationError, HTTPError, LocalTokenNotFoundError) as error:  # HTTPError is the hub client's own
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{options.name}: the hub did not take it: {reason}; check the name, and log in with HF_TOKEN"
        ) from error
    print(f"{url}: opens with Classifier.from_pretrained({options.name!r})")
