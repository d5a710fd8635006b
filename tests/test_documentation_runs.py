"""Every command and every piece of Python of README and docs is run, page by page, in a folder of a newcomer's.

Placeholders are real there: ``FOLDER`` has data, ``RUN`` a finished run, and so on. Trainings are cut to a few steps,
but for the tutorial's. A page is one script: what one block leaves, the next one finds.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT_DIR, TOY_DOCUMENTS, write_toy
from data.benchmarks.raw import bgc_files, put
from documentation import PAGES, Block, blocks, read
from helpers import start, toy_arguments
from served import free_port
from warm import warm_python

from ptmt_lightning.backbones import FromScratch
from ptmt_lightning.data.sample import write_sample

pytestmark = pytest.mark.slow


def runs(block: Block) -> bool:
    """Whether a block is run."""
    return block.reason is None and block.language in ("sh", "python")


RUN_PAGES = [page for page in PAGES if any(runs(block) for block in blocks(page))]

# What the shell calls in place of programs that would install, wait for ever, or train for long.
PRELUDE = """
set -euo pipefail
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
source() { :; }
pip() { :; }
make() { :; }
python() { if [ "$1" = run.py ]; then shift; ptmt train "$@"; else "$WARM" "$@"; fi; }
ptmt() {
    if [ "$1" = train ]; then
        shift; "$WARM" "$ROOT/tests/smaller_training.py" "$@"
    elif [ "$1" = serve ]; then
        "$WARM" -m ptmt_lightning.cli "$@" &
        for _ in $(seq 300); do curl -sf "127.0.0.1:$PORT/health" >/dev/null && return; sleep 0.2; done
        return 1
    else
        "$WARM" -m ptmt_lightning.cli "$@"
    fi
}
"""


def script(page: str, port: int) -> str:
    """The blocks of a page as one script for bash."""
    parts = [PRELUDE]
    for block in blocks(page):
        if runs(block):
            parts += [f"echo '== {block}'", as_shell(block, port)]
    return "\n".join(parts)


def as_shell(block: Block, port: int) -> str:
    """A block as lines for bash."""
    text = block.text.replace("8000", str(port))
    if block.language == "sh":
        return re.sub(r"^(ptmt serve (?!.*--port).*?)(\s+#.*)?$", rf"\1 --port {port}", text, flags=re.MULTILINE)
    name = block.title or f"block_{block.line}.py"
    written = f"cat > {name} <<'END'\n{text}END"
    return written if block.title else f'{written}\n"$WARM" {name}'


@pytest.fixture(scope="module")
def small_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first documents of the built-in sample."""
    folder = tmp_path_factory.mktemp("sample") / "sample"
    write_sample(folder)
    for split in folder.glob("*.jsonl"):
        with split.open() as lines:
            first = [*itertools.islice(lines, 60)]
        split.write_text("".join(first))
    return folder


@pytest.fixture
def folder(tmp_path: Path, finished_run: Path, small_sample: Path) -> Path:
    """A working folder in which every placeholder is there."""
    folder = tmp_path / "work"
    write_toy(folder / "FOLDER")
    shutil.copytree(finished_run, folder / "RUN")
    texts = [document["text"] for document in TOY_DOCUMENTS]
    (folder / "texts.txt").write_text("".join(f"{text}\n" for text in texts))
    (folder / "texts.csv").write_text("".join(f"{text}\n" for text in ["text", *texts]))
    rows = (f"{document['text']},{' | '.join(map(' > '.join, document['labels']))}" for document in TOY_DOCUMENTS * 5)
    (folder / "table.csv").write_text("\n".join(["text,labels", *rows, ""]))
    put(folder / "data/bgc", bgc_files())
    shutil.copytree(small_sample, folder / yaml.safe_load(read("conf/dataset/sample.yaml"))["path"])
    backbone, tokenizer, _ = FromScratch(hidden_size=32, intermediate_size=64).load(texts)
    backbone.save_pretrained(folder / "NAME_OR_FOLDER")
    tokenizer.save_pretrained(folder / "NAME_OR_FOLDER")
    return folder


def cut_off(folder: Path) -> Path:
    """A run that was killed before its end, as one that is to be resumed is."""
    done = start(folder, *toy_arguments(folder / "FOLDER"), "hydra.run.dir=CUT_OFF")
    assert done.returncode == 0, done.stderr
    (folder / "CUT_OFF/result.json").unlink()
    shutil.rmtree(folder / "CUT_OFF/model")
    return folder / "CUT_OFF"


@pytest.mark.parametrize("page", RUN_PAGES)
def test_a_page_does_what_it_says(page: str, folder: Path) -> None:
    port = free_port()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment = inherited | {
        "WARM": warm_python(), "ROOT": str(ROOT_DIR), "PORT": str(port), "PYTHONPATH": str(ROOT_DIR),
        "WHOLE": str(int(page == "docs/tutorial.md")),
        "CUT_OFF": str(cut_off(folder)) if "resume=RUN" in read(page) else "",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", script(page, port)], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=550, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    if page == "docs/tutorial.md":
        assert re.search(r"^Hardware > Printer \(0\.\d+, 0\.\d+\)$", done.stdout, re.MULTILINE), done.stdout
        assert json.loads((folder / "outputs/tickets/result.json").read_text())["test"]["h_f1_macro"] > 0.9
        assert '"Password"' in done.stdout.splitlines()[-1]  # the server's answer


def test_the_notebook_runs(tmp_path: Path) -> None:
    cells = json.loads(read("docs/notebook.ipynb"))["cells"]
    code = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "code")
    (tmp_path / "notebook.py").write_text(code.replace("max_epochs=6", "max_epochs=3"))
    done = subprocess.run(
        [warm_python(), "notebook.py"], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT_DIR)},
        capture_output=True, text=True, timeout=550, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "predicted:" in done.stdout


def test_the_site_is_built_strictly_and_asks_no_network_for_anything(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT_DIR, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        text = page.read_text()
        assert not re.search(r"<(?:script|img|iframe)[^>]+src=\"?(?:https?:)?//", text), page
        assert not re.search(r"<link[^>]+rel=\"?(?:stylesheet|preconnect)[^>]+href=\"?(?:https?:)?//", text), page
        assert "<!-- made:" not in text
        assert ":class:`" not in text
    assert (tmp_path / "site/method.html").read_text().count("<math") > 15
    assert 'id="dataset-jsonl"' in (tmp_path / "site/reference/settings.html").read_text()
    commands = (tmp_path / "site/reference/commands.html").read_text()
    assert all(f"usage: ptmt {name}" in commands for name in ("predict", "dashboard", "data download"))
    assert "<svg" in (tmp_path / "site/assets/rooms.svg").read_text()
    assert "asymmetric" in (tmp_path / "site/search/search_index.js").read_text()
