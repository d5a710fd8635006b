"""Standard output and standard error that can show any text."""

from __future__ import annotations

import io
import sys


def show_any_text() -> None:
    r"""Let both streams write what their encoding lacks as an escape such as ``\xe9``, where they would raise an error.

    Under a locale without UTF-8, as jobs of a cluster often have, a path or a progress bar would else end a training.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not where a test or a notebook has put its own
            stream.reconfigure(errors="backslashreplace")
