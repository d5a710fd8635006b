"""The command ``ptmt dashboard``, which makes views of a W&B project."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptmt_lightning.launch.conf import conf_folder
from ptmt_lightning.utils.files import check_folder_of, write_json

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

_QUERY = """
query View($entity: String!, $project: String!, $view: String!) {
  project(name: $project, entityName: $entity) {
    allViews(viewType: "project-view", viewName: $view) { edges { node { id } } }
  }
}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``ptmt dashboard`` to its parser."""
    parser.add_argument("--project", required=True, metavar="P", help="that runs were logged to: logger.wandb.project")
    parser.add_argument("--entity", metavar="E", help="user or team (default: WANDB_ENTITY, or the login's own)")
    parser.add_argument("--name", default="ptmt", help="the views' title begins with it (default: %(default)s)")
    parser.add_argument(
        "-o", "--output", type=Path, default="dashboard.json", metavar="FILE",
        help="for the views' specification, where there is no login (default: %(default)s)",
    )  # fmt: skip
    parser.set_defaults(run=_dashboard)


def _dashboard(options: argparse.Namespace) -> None:
    try:
        from ptmt_lightning.reporting import dashboard
    except ImportError as error:
        raise ValueError(f"{error}; install it with pip install 'ptmt_lightning[dashboard]'") from error
    import wandb
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    try:
        reason = _offline_reason()
        own = None if reason else wandb.Api().default_entity
        views = dashboard.views(
            entity=options.entity or os.environ.get("WANDB_ENTITY") or own or "",
            project=options.project, name=options.name, spaces=dashboard.search_spaces(conf_folder() / "search"),
        )  # fmt: skip
        if reason:
            _write(options.output, dashboard.specification(views), reason)
        else:
            for view in views:
                print(f"{_publish(view)}: {view.url}")
    except (wandb.Error, WandbApiFailedError) as error:
        raise ValueError(f"W&B: {error}; check --entity, --project and the API key") from error


def _write(file: Path, content: dict[str, Any], reason: str) -> None:
    check_folder_of(file, "-o")
    write_json(file, content)
    print(f"{file}: the views' specification. W&B was left alone: {reason}; then repeat this command")


def _offline_reason() -> str | None:
    """Return why W&B is not to be used or can't be reached; None if it can be used."""
    from ptmt_lightning.training.loggers import why_offline

    mode = os.environ.get("WANDB_MODE", "online")
    return f"WANDB_MODE={mode} (unset it)" if mode in ("offline", "dryrun", "disabled") else why_offline()


def _publish(view: Workspace) -> str:
    """Create a view in W&B or replace the one of its name; return ``created`` or ``updated``.

    Raises:
        ValueError: W&B has no such project.
    """
    import wandb
    from wandb_workspaces._graphql import execute_graphql

    wanted = {"entity": view.entity, "project": view.project, "view": view._internal_name}
    project = execute_graphql(wandb.Api(), _QUERY, wanted)["project"]
    if project is None:
        raise ValueError(
            f"--project {view.project}: {view.entity!r} has no such project; a run with logger=wandb makes it, or set "
            "--entity"
        )
    found = [edge["node"]["id"] for edge in project["allViews"]["edges"]]
    view._internal_id = found[0] if found else ""
    view.save()
    return "updated" if found else "created"
