"""Public names of a package that are imported only when they are first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a package's ``__getattr__``, which imports the module of a public name at the name's first use.

    Thus a package with light and heavy modules costs only what is used of it.

    Args:
        package: the ``__name__`` of the package.
        modules: for each public name, the module of the package that defines it.
    """

    def getattr_(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return getattr_
