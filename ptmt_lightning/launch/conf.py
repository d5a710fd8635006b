"""Where the project's configurations are."""

from __future__ import annotations

from pathlib import Path


def conf_folder() -> Path:
    """Return ``conf/``: of the installed package, or where there is none there, beside the package in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"
