"""An extension of Griffe: docstrings name code as ``:class:`~a.b.C` ``, which becomes a link in Markdown."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

ROLE = re.compile(r":(?:class|func|meth|mod|attr):`([^`]+)`")


class Roles(Extension):
    """Turns the roles of Sphinx into Markdown."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Change the docstring of an object that was read."""
        if obj.docstring is not None:
            obj.docstring.value = ROLE.sub(lambda found: _link(found[1]), obj.docstring.value)


def _link(path: str) -> str:
    name = path.lstrip("~.")
    shown = name.rpartition(".")[2] if path.startswith(("~", ".")) else name
    return f"[`{shown}`][{name}]" if name.startswith("ptmt_lightning.") else f"`{shown}`"
