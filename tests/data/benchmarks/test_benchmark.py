"""The benchmarks as data to train on: their examples, and whole runs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from benchmark_modules import FOLDED, NAMES, connected, folds
from conftest import ROOT_DIR, tiny_source
from raw import AMAZON_LABELS, benchmark, official, prepared, published, put
from warm import warm_python

from ptmt_lightning.data.document import Example


def examples(data: Any, split: str) -> list[Example]:
    return [example for batch in getattr(data, f"{split}_dataloader")() for example in batch]


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_the_tokens_and_nodes_of_their_documents(name: str, tmp_path: Path) -> None:
    data = benchmark(name, tmp_path, fold=1) if name in FOLDED else benchmark(name, tmp_path)
    content = prepared(data)
    _, tokenizer, max_tokens = tiny_source(vocabulary_size=200).load(data.texts("train"))
    data.connect(tokenizer=tokenizer, max_tokens=max_tokens, train_collator=list, eval_collator=list)
    for split, size in data.split_sizes().items():
        assert data.num_documents(split) == size
        documents = content.get(split, content.get("all"))
        found = examples(data, split)
        assert sorted(example.row for example in found) == list(range(size))
        texts = list(data.texts(split))
        for example in found:
            [document_id] = data.document_ids(split, [example.row])
            prefix, line = document_id.split(":")
            assert prefix == ("all" if name in FOLDED else split)
            text, paths = documents[int(line) - 1]
            assert text == texts[example.row]
            expected = tokenizer(text, add_special_tokens=False)["input_ids"][:max_tokens]
            assert example.input_ids.tolist() == expected
            nodes = {label for path in paths for label in path}
            assert {data.taxonomy.names[node] for node in example.nodes} == nodes


def test_a_share_of_the_training_documents_is_part_of_a_larger_one(tmp_path: Path) -> None:
    used = {}
    for fraction in (0.25, 0.5, 1.0):
        data = connected(benchmark("amazon", tmp_path, fold=0, train_fraction=fraction))
        used[fraction] = {data.document_ids("train", [example.row])[0] for example in examples(data, "train")}
        assert len(used[fraction]) == data.num_documents("train") == round(fraction * data.split_sizes()["train"])
    assert used[0.25] < used[0.5] < used[1.0]
    assert used[1.0] == set(json.loads(folds(data)[0].read_text())["train"])


def test_what_killed_processes_left_half_prepared_goes(tmp_path: Path) -> None:
    data = benchmark("wos", tmp_path)
    left = data.folder / "prepared-0123.abcd.tmp"
    left.mkdir(parents=True)
    (left / "all.jsonl").touch()
    data.prepare_data()
    assert not left.exists()


def test_most_labels_at_a_level(tmp_path: Path) -> None:
    """The second book has two nodes on level 2, the fourth two tops."""
    assert connected(benchmark("bgc", tmp_path)).most_labels_at_a_level("train") == (2, "train:2", 2)
    assert connected(benchmark("bgc", tmp_path)).most_labels_at_a_level("test") == (2, "test:2", 1)
    wos = connected(benchmark("wos", tmp_path, fold=4))
    first = json.loads(folds(wos)[0].read_text())["val"][0]
    assert wos.most_labels_at_a_level("val") == (1, first, 1)


# ---- whole runs ----


RUN = [
    "backbone=tiny", "backbone.hidden_size=32", "trainer=cpu", "debug=fast_dev_run", "dataset.batch_size=4",
    "trainer.enable_progress_bar=false", "callbacks.progress_bar=null",
]  # fmt: skip


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    offline = {"HOME": str(tmp_path)}
    return subprocess.run(
        [warm_python(), str(ROOT_DIR / "run.py"), *RUN, *arguments],
        cwd=tmp_path, env=inherited | offline, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("wos", ["dataset.fold=5"]), ("bgc", []), ("amazon", ["dataset.train_fraction=0.5"])],
)
def test_a_benchmark_trains_from_its_official_files(name: str, arguments: list[str], tmp_path: Path) -> None:
    """With the paths that ``conf/dataset`` gives: raw files in ``data/<name>/raw``, the cache in ``data/cache``."""
    folder = put(tmp_path / "data" / name, official(name))
    done = run(tmp_path, f"dataset={name}", *arguments)
    assert done.returncode == 0, done.stderr
    assert f"{name}: reading " in done.stdout
    assert len(list(folder.glob("prepared-*"))) == 1
    ids = [path.name.split("-")[1] for path in (tmp_path / "data/cache").glob("*.json")]
    assert ids == {"wos": ["fold5"], "bgc": [], "amazon": ["published"]}[name]
    assert len(list((tmp_path / "data/cache").rglob("*.arrow"))) == (3 if name == "bgc" else 1)


def test_a_benchmark_trains_from_a_mirror(tmp_path: Path) -> None:
    mirror = put(tmp_path / "mirror", {**published("bugs", AMAZON_LABELS)}) / "raw"
    done = run(tmp_path, "dataset=bugs", "dataset.path=bugs", f"dataset.mirror={mirror.as_uri()}")
    assert done.returncode == 0, done.stderr
    raw = tmp_path / "bugs/raw"
    assert {path.name for path in raw.glob("[!.]*")} == {"bugs_train.jsonl", "bugs_test.jsonl", "downloads.json"}
    assert len(list((tmp_path / "bugs").glob("prepared-*"))) == 1
