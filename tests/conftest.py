"""Tiny real data, tokenizers and models; nothing here is mocked, and nothing outlives a test."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Before the first import that reads them: nothing is asked of a hub, and two test processes share two cores.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
import wandb
from family_models import save_family
from filelock import FileLock
from hypothesis import settings
from transformers import BertTokenizer, PreTrainedTokenizerBase
from warm import warm_python

from ptmt_lightning.backbones import Backbone, FromScratch, Pretrained
from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.data.document import Example
from ptmt_lightning.losses import WASL
from ptmt_lightning.models.ptmt.collator import PTMTBatch
from ptmt_lightning.models.ptmt.module import PTMT
from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.taxonomy import Taxonomy

Start = Callable[..., "subprocess.Popen[str]"]

# No folder of failed examples, and no failure because a busy machine was slow.
settings.register_profile("here", database=None, deadline=None)
settings.load_profile("here")

ROOT_DIR = Path(__file__).parents[1]
SHARED = ROOT_DIR.parent / "shared"

# The taxonomy of the paper's Figure 4: three levels, paths that end on each of them.
TOY_EDGES = [
    ("ROOT", "A"), ("ROOT", "B"), ("ROOT", "C"),
    ("A", "AA"), ("A", "AB"), ("A", "AC"), ("AA", "AAA"),
    ("B", "BA"), ("B", "BB"), ("B", "BC"), ("C", "CA"),
]  # fmt: skip

TOY_DOCUMENTS = [
    {"text": "m n o", "labels": [["A", "AA", "AAA"]]},
    {"text": "x y z", "labels": [["C"]]},
    {"text": "p q p q r", "labels": [["B", "BB"], ["A", "AB"]]},
    {"text": "s t u s t u s", "labels": [["B", "BC"]]},
    {"text": "m x", "labels": [["A", "AC"], ["C", "CA"]]},
    {"text": "q r", "labels": [["B", "BA"]]},
]


def pytest_configure() -> None:
    """Let tests and the programs that they start be interrupted, which shells forbid to their background jobs."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def same_process_state() -> Iterator[None]:
    """Put back what a block may change for others: environment, random state, process group."""
    environment = dict(os.environ)
    with torch.random.fork_rng():
        yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(autouse=True)
def _same_process_state() -> Iterator[None]:
    with same_process_state():
        yield


@pytest.fixture
def toy_taxonomy() -> Taxonomy:
    """3 / 7 / 1 nodes."""
    return Taxonomy(TOY_EDGES)


def write_folder(folder: Path, edges: list[tuple[str, str]], **splits: list[dict[str, Any]]) -> Path:
    """A data folder in the project's form."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "taxonomy.tsv").write_text("".join(f"{parent}\t{child}\n" for parent, child in edges))
    for split, documents in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    return folder


def write_toy(folder: Path) -> Path:
    """Data on the toy taxonomy: 24 training, 6 validation and 7 test documents."""
    test = [*TOY_DOCUMENTS, TOY_DOCUMENTS[0]]
    return write_folder(folder, TOY_EDGES, train=TOY_DOCUMENTS * 4, val=TOY_DOCUMENTS, test=test)


@pytest.fixture
def toy_folder(tmp_path: Path) -> Path:
    """Data on the toy taxonomy, see `write_toy`."""
    return write_toy(tmp_path / "toy")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with thresholds of its own on the toy data, to read only: made once for all test processes."""
    from helpers import FAST, run  # which imports this module

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with FileLock(folder / "finished.lock"), same_process_state():
        if not (folder / "finished/run/result.json").exists():
            toy = write_toy(folder / "finished/toy")
            settings: dict[str, Any] = {"optimizer": FAST, "tune_threshold": "level", "trainer": {"max_epochs": 8}}
            run(toy, folder / "finished", folder / "finished/run", **settings)
    return folder / "finished/run"


def tiny_source(**changes: Any) -> FromScratch:
    """A BERT of 2 layers x 32."""
    settings: dict[str, Any] = {
        "name": "tiny", "hidden_size": 32, "num_layers": 2, "num_heads": 4, "intermediate_size": 64,
        "vocabulary_size": 100, "max_length": 32, "dropout": 0.1,
    }  # fmt: skip
    return FromScratch(**settings | changes)


@pytest.fixture
def tiny() -> tuple[Backbone, BertTokenizer, int]:
    """Backbone, tokenizer and maximum length for the toy texts; seeded."""
    torch.manual_seed(0)
    return tiny_source().load(document["text"] for document in TOY_DOCUMENTS)  # type: ignore[return-value]


def toy_examples(tokenizer: PreTrainedTokenizerBase, taxonomy: Taxonomy) -> list[Example]:
    """All toy documents, tokenised."""
    examples = []
    for row, document in enumerate(TOY_DOCUMENTS):
        ids = tokenizer(document["text"], add_special_tokens=False)["input_ids"]
        nodes = taxonomy.encode(document["labels"])  # type: ignore[arg-type]
        examples.append(Example(row, 0, np.array(ids, dtype=np.int32), np.array(nodes, dtype=np.int32)))
    return examples


def equal_batches(one: PTMTBatch, other: PTMTBatch) -> bool:
    """To the last bit."""
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(one, other, strict=True))


def ptmt_settings(**changes: Any) -> dict[str, Any]:
    """Everything that PTMT takes besides taxonomy, backbone, tokenizer and max_length."""
    settings: dict[str, Any] = {
        "num_prompt_tokens": 3, "prompts": "shared", "alpha": 0.1, "alpha_l1": 1.0, "count_scope": "level",
        "mlm_slots": False, "mlm_probability": 0.15, "p_label": 1.0, "label_init": "label_name", "seed": 0,
        "label_loss": WASL(gamma_pos=1, gamma_neg=4, margin=0.05, level_weights={"first": 1.0, "step": 0.5}),
        "optimizer": LinearAdamW(learning_rate=1e-3, new_rate_factor=1, weight_decay=0.01, warmup_ratio=0.05),
    }  # fmt: skip
    return settings | changes


@pytest.fixture
def toy_ptmt(toy_taxonomy: Taxonomy, tiny: tuple[Backbone, BertTokenizer, int]) -> PTMT:
    """PTMT on the toy taxonomy."""
    backbone, tokenizer, max_length = tiny
    return PTMT(taxonomy=toy_taxonomy, backbone=backbone, tokenizer=tokenizer, max_length=max_length, **ptmt_settings())


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond 10 kB: what a full disk looks like to it."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def drop_digest(model: Path) -> None:
    """Rewrite a saved model's settings as versions before 0.2 did: what else is changed is not seen by its digest."""
    settings = json.loads((model / "ptmt.json").read_text())
    settings.pop("digest", None)
    (model / "ptmt.json").write_text(json.dumps(settings))


def saved_ptmt(folder: Path, taxonomy: Taxonomy, model_type: str | None = None, **changes: Any) -> PTMT:
    """A PTMT whose scores are spread out, and its folder."""
    torch.manual_seed(0)
    texts = [document["text"] for document in TOY_DOCUMENTS]
    source = tiny_source() if model_type is None else Pretrained(name=str(save_family(folder, model_type, texts)))
    backbone, tokenizer, max_length = source.load(texts)
    settings = ptmt_settings(**changes)
    model = PTMT(taxonomy=taxonomy, backbone=backbone, tokenizer=tokenizer, max_length=max_length, **settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("backbone.new", "document_prompts")):
                parameter.add_(0.3 * torch.randn_like(parameter))
        model.backbone.new_bias[-len(taxonomy) :] = torch.linspace(-2, 2, len(taxonomy))[torch.randperm(len(taxonomy))]
    model.eval()
    model.save_pretrained(folder / "model")
    return model


def datamodule(folder: Path, tmp_path: Path, **changes: Any) -> HTCDataModule:
    """A data module over a folder, with its cache in ``tmp_path``."""
    settings: dict[str, Any] = {
        "name": "toy",
        "path": str(folder),
        "batch_size": 4,
        "cache_dir": str(tmp_path / "cache"),
    }
    return HTCDataModule(**settings | changes)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the application with ``tmp_path`` as working folder; ended with the test."""
    processes: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, python: str | None = None, **environment: str) -> subprocess.Popen[str]:
        script = ROOT_DIR / "tests" / "plugins" / "app" / "app.py"
        process = subprocess.Popen(
            [python or warm_python(), str(script), "-m", *arguments, "--config-dir", str(ROOT_DIR / "conf")],
            cwd=tmp_path, env=dict(os.environ) | environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        processes.append(process)
        return process

    yield begin
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture
def fresh_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """W&B as on a machine where nobody ever logged in; all that it writes lies in the given folder."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("CONFIG", "CACHE", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / name.lower()))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked for a key"))
    wandb.teardown()  # the settings are read from the environment once a process
    yield tmp_path
    wandb.teardown()
