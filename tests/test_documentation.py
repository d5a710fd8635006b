"""What README and docs say: links lead somewhere, commands and settings exist; the long tests run all of it."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import ROOT_DIR
from documentation import PAGES, Block, blocks, commands, prose, read

import ptmt_lightning
from ptmt_lightning.launch.checks import check_overrides
from ptmt_lightning.launch.overrides import arguments_for_hydra

BLOCKS = [block for page in PAGES for block in blocks(page)]
SHELL = [block for block in BLOCKS if block.language == "sh"]
PYTHON = [block for block in BLOCKS if block.language == "python"]
OTHER_PROGRAMS = {"cat", "curl", "docker", "find", "mkdir", "printf", "source", "srun", "torchrun"}
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    for link in LINK.findall(prose(page)):
        if "://" not in link:
            address, _, anchor = link.partition("#")
            target = (ROOT_DIR / page).parent / address if address else ROOT_DIR / page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_each_block_is_of_a_kind_that_is_known() -> None:
    assert {block.language for block in BLOCKS} == {"sh", "python", "json", "text", "math"}
    for page in PAGES:
        assert prose(page).count("<!-- not run") == sum(block.reason is not None for block in blocks(page)), page
    assert all(block.reason is None or len(block.reason.split()) >= 3 for block in BLOCKS)


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_commands_and_settings_exist(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for line in commands(block):
        for command in line.split(" | "):
            check(shlex.split(command.partition(" > ")[0], comments=True))


def check(words: list[str]) -> None:
    """Refuse a command that does not exist, or has no such arguments."""
    if words[0] in ("torchrun", "srun"):
        words = words[words.index("run.py") - 1 :] if words[0] == "srun" else ["python", *words[2:]]
    match words:
        case ["ptmt", "train", *arguments] | ["python", "run.py", *arguments]:
            if "--config-dir" in arguments:  # which the page makes
                return
            check_overrides(arguments_for_hydra(arguments))
        case ["ptmt", "--help"]:
            pass
        case ["ptmt", name, *arguments]:
            parser = argparse.ArgumentParser(exit_on_error=False)
            importlib.import_module(f"ptmt_lightning.commands.{name}").add_arguments(parser)
            parser.parse_args(arguments)
        case ["make", target]:
            assert re.search(rf"^{target}:.*##", (ROOT_DIR / "Makefile").read_text(), re.MULTILINE), target
        case ["pip", "install", what]:
            extra = re.fullmatch(r"(?:\.|ptmt_lightning)\[(\w+)\]", what)
            assert extra
            assert extra[1] in project()["optional-dependencies"]
        case ["python", script] if script.endswith(".py"):
            titles = {block.title for block in PYTHON}
            assert script in titles or (ROOT_DIR / script).exists()
        case [program, *_]:
            assert program in OTHER_PROGRAMS or (ROOT_DIR / program).exists(), words


def project() -> dict[str, dict[str, list[str]]]:
    """The part ``project`` of pyproject.toml."""
    content: dict[str, dict[str, list[str]]] = tomllib.loads((ROOT_DIR / "pyproject.toml").read_text())["project"]
    return content


def notebook_cells() -> list[str]:
    """The code of the notebook."""
    cells = json.loads(read("docs/notebook.ipynb"))["cells"]
    return [cell["source"] for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("text", [*(block.text for block in PYTHON), *notebook_cells()])
def test_python_is_whole_and_imports_what_is_there(text: str) -> None:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "json"], ids=str)
def test_json_is_a_document_a_line(block: Block) -> None:
    for line in block.text.splitlines():
        document = json.loads(line)
        assert isinstance(document["text"], str)
        assert all(isinstance(name, str) for path in document["labels"] for name in path)


def test_the_readme_is_short() -> None:
    assert len(read("README.md").splitlines()) < 150


def test_results_name_every_experiment() -> None:
    page = read("docs/results.md")
    for folder in (ROOT_DIR / "experiments").glob("*/README.md"):
        assert f"(../experiments/{folder.parent.name}/README.md)" in page


def test_the_table_of_settings_has_every_group_and_choice() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ((?:`\w+` ?)+)\|", read("docs/reference/settings.md"), re.MULTILINE))
    groups = [folder for folder in (ROOT_DIR / "conf").iterdir() if folder.is_dir() and folder.name != "hydra"]
    assert {name: set(re.findall(r"\w+", choices)) for name, choices in rows.items()} == {
        group.name: {path.stem for path in group.glob("[a-z]*.yaml")} for group in groups
    }


def test_the_table_of_the_architecture_has_every_room() -> None:
    page = read("docs/architecture.md")
    for path in (ROOT_DIR / "ptmt_lightning").iterdir():
        name = path.name if path.suffix == ".py" else f"{path.name}/"
        if not name.startswith("__") and (path.suffix == ".py" or (path / "__init__.py").exists()):
            assert f"`{name}`" in page


def test_defaults_that_the_method_names() -> None:
    page = read("docs/method.md")
    model, loss = (yaml.safe_load(read(f"conf/{name}.yaml")) for name in ("model/ptmt", "loss/wasl"))
    assert f"| `model.alpha_l1` | {model['alpha_l1']} |" in page
    assert f"| `loss.gamma_pos`, `loss.gamma_neg` | {loss['gamma_pos']}, {loss['gamma_neg']} |" in page
    assert f"| `loss.margin` | {loss['margin']} |" in page
    assert f"| `model.num_prompt_tokens` | {model['num_prompt_tokens']} |" in page
    assert f"probability {model['mlm_probability']} (`model.mlm_probability`)" in page


def test_the_figures_of_the_readme_are_those_of_table_1() -> None:
    table = read("experiments/table1_benchmarks/README.md")
    measured = {
        (data, system): figures
        for data, system, figures in re.findall(r"^\| `(\w+)` \| ([^|]+) \| \**([\d.]+ ± [\d.]+)", table, re.MULTILINE)
    }
    names = {
        "plain head on `[CLS]`, binary cross-entropy": "plain head, BCE",
        "plain head on `[CLS]`, the loss of PTMT": "plain head, WASL",
    }
    figures = r"\**([\d.]+ ± [\d.]+)\**"
    rows = re.findall(rf"^\| ([^|]+) \| {figures} \| {figures} \|$", read("README.md"), re.MULTILINE)
    assert len(rows) == 6
    for system, clinc150, goemotions in rows:
        name = names.get(system, system)
        assert (measured["clinc150", name], measured["goemotions", name]) == (clinc150, goemotions)


def test_one_version_everywhere() -> None:
    version = ptmt_lightning.__version__
    citation = yaml.safe_load(read("CITATION.cff"))
    [(newest, date), *_] = re.findall(r"^## ([\d.]+) - ([\d-]+)$", read("CHANGELOG.md"), re.MULTILINE)
    assert (newest, date) == (version, str(citation["date-released"]))
    assert citation["version"] == version
