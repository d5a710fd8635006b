r"""Equations in Markdown: LaTeX in ```` ```math ```` blocks and in ``$`...`$`` becomes MathML, which browsers draw."""

from __future__ import annotations

import re

from latex2mathml.converter import convert
from markdown import Markdown
from markdown.extensions import Extension
from markdown.preprocessors import Preprocessor

BLOCK = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"\$`([^`]+)`\$")


class Equations(Extension):  # type: ignore[misc]
    """Draws equations by MathML."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Read equations before code and text, where their signs mean other things, and after white space (30)."""
        md.preprocessors.register(_ToMathML(md), "equations", 27)


class _ToMathML(Preprocessor):  # type: ignore[misc]
    def run(self, lines: list[str]) -> list[str]:
        """Put MathML in the place of each equation."""
        text = BLOCK.sub(lambda found: self._keep(found[1], "block"), "\n".join(lines))
        return INLINE.sub(lambda found: self._keep(found[1], "inline"), text).split("\n")

    def _keep(self, latex: str, display: str) -> str:
        return str(self.md.htmlStash.store(convert(latex.strip(), display=display)))
