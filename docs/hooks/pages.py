"""A hook of MkDocs: pages from all of the repository's Markdown and from notebooks, with links that work on both sides.

Pages in ``docs/`` link to other files of the repository as they lie, which a viewer of the repository follows. On the
site, links to Markdown, Python and configurations lead to the pages that show these; to all else, only the text stays.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from equations import Equations
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "ptmt_lightning/backbones/README.md")  # outside of docs/
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Read equations in Markdown."""
    config.markdown_extensions.append(Equations())
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside of ``docs/``, those of notebooks, and the pictures that any page shows."""
    for path in [*PAGES, *_experiments()]:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    for notebook in sorted((ROOT / "docs").glob("*.ipynb")):
        files.append(File.generated(config, f"{notebook.stem}.md", content=_as_markdown(notebook)))
    for page in list(files.documentation_pages()):
        if page.src_uri.endswith(".md"):
            for is_picture, _, link in LINK.findall(page.content_string):
                path = _in_repository(page, link)
                is_known = path.startswith("docs/") or path in files.src_uris
                if is_picture and not is_known and (ROOT / path).exists():
                    files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links within the repository into links within the site."""

    def turn(found: re.Match[str]) -> str:
        mark, text, link = found.groups()
        if "://" in link or link.startswith(("#", "mailto:")):
            return found[0]
        address, _, anchor = link.partition("#")
        target = _on_site(_in_repository(page.file, address), anchor)
        if target is None:
            return text
        return f"{mark}[{text}]({posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or '.')})"

    return LINK.sub(turn, markdown)


def _experiments() -> Iterator[str]:
    return (path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("experiments/*/README.md")))


def _as_markdown(notebook: Path) -> str:
    """Return a notebook's cells as Markdown, with the notebook itself to take along."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    parts = [
        cell["source"] if cell["cell_type"] == "markdown" else f"```python\n{cell['source']}\n```" for cell in cells
    ]
    return "\n\n".join([*parts, f'<a href="{notebook.name}" download>This page as a notebook</a>'])


def _in_repository(page: File, link: str) -> str:
    """Return the path of a link's file from the root of the repository."""
    is_outside = page.src_uri in PAGES or page.src_uri.startswith("experiments/")
    own = page.src_uri if is_outside else f"docs/{page.src_uri}"
    return posixpath.normpath(posixpath.join(posixpath.dirname(own), link.partition("#")[0]))


def _on_site(path: str, anchor: str) -> str | None:
    """Return the page or picture that shows a file of the repository; None where there is none."""
    end = f"#{anchor}" if anchor else ""
    if path.startswith("docs/"):
        return path.removeprefix("docs/").replace(".ipynb", ".md") + end
    if path == "README.md":
        return "index.md"
    if path.startswith("conf/"):
        name = path.removeprefix("conf/").removesuffix(".yaml").replace("/", "-")
        return f"reference/settings.md#{name}"
    if path.startswith("ptmt_lightning/") and path.endswith(".py"):
        parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
        return f"reference/api/{parts[1]}.md#{'.'.join(parts)}"
    if path in PAGES or path.endswith(".png") or (path.startswith("experiments/") and path.endswith("README.md")):
        return path + end
    return None
