"""A hook of MkDocs: what pages show of the code is made from it, in the place of ``<!-- made: NAME -->``."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "experiments/architecture")]

import picture  # noqa: E402
from imports import PACKAGE, room_imports  # noqa: E402

from ptmt_lightning.cli import main  # noqa: E402

API, ROOMS = "reference/api", "assets/rooms.svg"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put a page for each experiment and each room of the package into the navigation."""
    experiments = [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("experiments/*/README.md"))]
    _below(config.nav, "results.md", {"All measurements": experiments})
    _below(config.nav, "reference/python.md", {"All modules": [f"{API}/{room}.md" for room in _rooms()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each room of the package, and the picture of all."""
    arrows = {room: below for room, below in room_imports(ROOT / PACKAGE).items() if room != "__main__"}
    files.append(File.generated(config, ROOMS, content=picture.draw(arrows)))
    for room, modules in _rooms().items():
        text = f"# {room}\n\n" + "\n\n".join(f"::: {module}" for module in modules)
        files.append(File.generated(config, f"{API}/{room}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is made from the code."""
    for name, make in MADE.items():
        if f"<!-- made: {name} -->" in markdown:
            markdown = markdown.replace(f"<!-- made: {name} -->", make())
    return markdown


def settings() -> str:
    """Return all files of ``conf/``: of each its name, its first comment as a sentence, and its content."""
    parts = []
    for path in sorted((ROOT / "conf").rglob("*.yaml"), key=lambda path: (len(path.relative_to(ROOT).parts), path)):
        *group, name = path.relative_to(ROOT / "conf").with_suffix("").parts
        lines = path.read_text(encoding="utf-8").splitlines()
        is_global = lines[0] == "# @package _global_"
        lines = lines[is_global:]
        num_comments = next(i for i, line in enumerate([*lines, ""]) if not line.startswith("#"))
        comment = " ".join(line.removeprefix("# ") for line in lines[:num_comments])
        title = f"`{'/'.join(group)}={name}`" if group else "Of every run"
        anchor = "-".join([*group, name])
        body = "\n".join(["```yaml", *lines[num_comments:], "```"])
        parts += [f"### {title} {{ #{anchor} }}", comment, body]
    return "\n\n".join(parts)


def commands() -> str:
    """Return the help of each ``ptmt`` command, and of what is below it, as of ``ptmt data``."""
    parts = []
    for name in _names(_help()):
        if name != "train":  # which has Hydra's help
            below = [_help(name, action) for action in _names(_help(name))]
            parts += [f"## ptmt {name}", *(f"```text\n{text}\n```" for text in (_help(name), *below))]
    return "\n\n".join(parts)


def modules() -> str:
    """Return a table of the rooms with what each is for."""
    rows = []
    for room, names in _rooms().items():
        first = ROOT / names[0].replace(".", "/")
        path = first / "__init__.py" if first.is_dir() else first.with_suffix(".py")
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        summary = " ".join(text.partition("\n\n")[0].split())
        rows.append(f"| [`{room}`](api/{room}.md) | {summary} |")
    return "\n".join(["| | |", "|---|---|", *rows])


def architecture() -> str:
    """Return the picture of the rooms, for a page at the top."""
    return f"![Rooms of the package, floor by floor, with lines to what each imports]({ROOMS})"


MADE: dict[str, Callable[[], str]] = {
    "settings": settings,
    "commands": commands,
    "modules": modules,
    "architecture": architecture,
}


def _rooms() -> dict[str, list[str]]:
    """Return the modules of each room of the package that others may use."""
    rooms: dict[str, list[str]] = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[1] not in ("__init__", "__main__") and parts[-1] != "__main__":
            rooms.setdefault(parts[1], []).append(".".join(part for part in parts if part != "__init__"))
    return rooms


def _help(*arguments: str) -> str:
    """Return what ``ptmt ARGUMENTS --help`` prints."""
    os.environ.update(COLUMNS="100", NO_COLOR="1")
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            main([*arguments, "--help"])
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"ptmt {' '.join(arguments)} --help: exit code {end.code}") from None
    return text.getvalue().strip()


def _names(text: str) -> list[str]:
    """Return the names of the commands that a help text lists."""
    return re.findall(r"^    (\w+)\b", text, re.MULTILINE)


def _below(nav: list[Any] | None, page: str, group: dict[str, list[str]]) -> None:
    """Put a group of pages behind a page of the navigation."""
    for section in nav or ():
        for pages in section.values():
            for number, place in enumerate(list(pages)):
                if page in (place, *(place.values() if isinstance(place, dict) else ())):
                    pages.insert(number + 1, group)
