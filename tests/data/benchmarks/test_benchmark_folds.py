"""Folds of a benchmark: one cache for all, and their ids beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from benchmark_modules import FOLDED, SPLITS, connected, folds
from conftest import tiny_source
from raw import AMAZON_LABELS, benchmark, module, prepared, published, put
from sklearn.model_selection import train_test_split

from ptmt_lightning.data.benchmarks.amazon import AmazonDataModule
from ptmt_lightning.data.benchmarks.folds import make_fold
from ptmt_lightning.data.benchmarks.wos import WOSDataModule

SIZES = {"wos": 63, "bugs": 36, "amazon": 56}  # of the small official files


def rows_of_ids(path: Path) -> dict[str, list[int]]:
    """Rows, from the ids ``all:<line>``."""
    return {
        split: [int(i.removeprefix("all:")) - 1 for i in ids] for split, ids in json.loads(path.read_text()).items()
    }


@pytest.mark.parametrize("name", FOLDED)
def test_folds_are_those_of_the_last_labels_and_texts_follow_them(name: str, tmp_path: Path) -> None:
    for fold in range(6):
        data = benchmark(name, tmp_path, fold=fold)
        documents = prepared(data)["all"]
        assert len(documents) == SIZES[name]
        _, classes = np.unique([path[-1] for _, [path] in documents], return_inverse=True)
        expected = {split: rows.tolist() for split, rows in make_fold(classes, fold).items()}
        assert data.split_sizes() == {split: len(rows) for split, rows in expected.items()}
        for split in SPLITS:
            assert list(data.texts(split)) == [documents[row][0] for row in expected[split]]
            assert data.has_split(split)
        assert rows_of_ids(folds(data)[fold]) == expected


@pytest.mark.parametrize("name", FOLDED)
def test_all_folds_share_one_cache(name: str, tmp_path: Path) -> None:
    tokenizer, max_tokens = None, 0
    for fold in range(6):
        data = benchmark(name, tmp_path, fold=fold)
        data.prepare_data()
        if tokenizer is None:
            _, tokenizer, max_tokens = tiny_source(vocabulary_size=200).load(data.texts("train"))
        data.connect(tokenizer=tokenizer, max_tokens=max_tokens, train_collator=list, eval_collator=list)
        assert sum(data.num_documents(split) for split in SPLITS) == SIZES[name]
    assert len(list(data.cache_dir.rglob("*.arrow"))) == 1
    key = data.path.name.removeprefix("prepared-")
    assert [path.name for path in folds(data)] == [f"{name}-fold{fold}-{key}.json" for fold in range(6)]


def test_ids_are_those_of_the_prepared_file_whatever_the_name_of_the_data(tmp_path: Path) -> None:
    first = connected(benchmark("wos", tmp_path, fold=2))
    [path] = folds(first)
    ids = json.loads(path.read_text())
    assert list(ids) == ["train", "val", "test"]
    assert sorted(i for split in ids.values() for i in split) == sorted(f"all:{row + 1}" for row in range(63))
    for split in SPLITS:
        assert first.document_ids(split, list(range(len(ids[split])))) == ids[split]
    other = connected(module(WOSDataModule, tmp_path / "wos", fold=2, name="Mine"))
    assert path.with_name(path.name.replace("wos-", "Mine-")) in folds(other)
    assert other.document_ids("test", [0, 1]) == ids["test"][:2]


def test_the_ids_are_written_once(tmp_path: Path) -> None:
    first = benchmark("wos", tmp_path, fold=2)
    first.prepare_data()
    sizes = first.split_sizes()
    [path] = folds(first)
    before = path.stat()
    again = benchmark("wos", tmp_path, fold=2)
    again.prepare_data()
    assert again.split_sizes() == sizes
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.parametrize("change", ["another document", "other order", "a split less"])
def test_ids_that_differ_from_the_fold_are_refused(change: str, tmp_path: Path) -> None:
    first = benchmark("wos", tmp_path, fold=2)
    first.prepare_data()
    first.split_sizes()
    [path] = folds(first)
    ids = json.loads(path.read_text())
    if change == "another document":
        ids["train"][0], ids["val"][0] = ids["val"][0], ids["train"][0]
    elif change == "other order":
        ids["test"].reverse()
    else:
        del ids["val"]
    path.write_text(json.dumps(ids))
    again = benchmark("wos", tmp_path, fold=2)
    again.prepare_data()
    message = f"{path}: the fold had other documents at an earlier start; another version of scikit-learn may divide"
    for use in (again.split_sizes, lambda: list(again.texts("train")), lambda: again.split_sizes()):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            use()
    assert json.loads(path.read_text()) == ids
    other = benchmark("wos", tmp_path, fold=3)
    other.prepare_data()
    assert other.split_sizes()["test"] == 21
    path.unlink()
    assert again.split_sizes() == first.split_sizes()
    assert path.exists()


def test_other_data_have_folds_of_their_own(tmp_path: Path) -> None:
    for value in (2, 11):
        connected(benchmark("wos", tmp_path, min_documents=value))
    assert len(list((tmp_path / "cache").glob("wos-fold0-*.json"))) == 2


@pytest.mark.parametrize("fold", [-1, 6, 1.0, "0", True])
def test_bad_folds_are_refused(fold: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^dataset\.fold=.*: expected an integer in \[0, 5\]; set dataset\.fold to"):
        benchmark("amazon", tmp_path, fold=fold)


def test_data_too_small_for_folds_are_refused(tmp_path: Path) -> None:
    data = module(AmazonDataModule, put(tmp_path / "amazon", {**published("amazon", AMAZON_LABELS, each=2)}), fold=0)
    data.prepare_data()
    with pytest.raises(ValueError, match="the most frequent label has 2 document"):
        data.split_sizes()
    assert not folds(data)


# ---- the published split ----


def test_no_published_test_document_is_trained_on(tmp_path: Path) -> None:
    data = benchmark("amazon", tmp_path)
    data.prepare_data()
    raw = {name: (tmp_path / "amazon/raw" / f"amazon_{name}.jsonl").read_text() for name in ("train", "test")}
    texts = {name: [json.loads(line)["text"] for line in lines.splitlines()] for name, lines in raw.items()}
    assert list(data.texts("test")) == texts["test"]  # in the order of the file
    assert sorted([*data.texts("train"), *data.texts("val")]) == sorted(texts["train"])
    assert data.protocol == "published test file; validation: 20 % of the rest, stratified, seed 936818217"
    [path] = data.cache_dir.glob("amazon-*.json")
    assert path.name.startswith("amazon-published-")
    order = [texts["train"].index(text) for text in data.texts("train")]
    assert order == sorted(order)
    labels = [json.loads(line)["labels"][-1] for line in raw["train"].splitlines()]
    train, val = train_test_split(texts["train"], test_size=0.2, random_state=936818217, stratify=labels)
    assert (set(data.texts("train")), set(data.texts("val"))) == (set(train), set(val))


def test_folds_of_published_files_are_made_on_demand(tmp_path: Path) -> None:
    published_test = set(benchmark_texts(tmp_path, split="published"))
    assert set(benchmark_texts(tmp_path)) == published_test
    folds_of = [set(benchmark_texts(tmp_path, **change)) for change in ({"split": "folds"}, {"fold": 0}, {"fold": 1})]
    assert folds_of[0] == folds_of[1] != folds_of[2]
    assert published_test not in folds_of


def benchmark_texts(tmp_path: Path, **changes: object) -> list[str]:
    data = benchmark("amazon", tmp_path, **changes)
    data.prepare_data()
    return list(data.texts("test"))


def test_validation_as_in_the_scripts_of_two_systems(tmp_path: Path) -> None:
    first = benchmark("amazon", tmp_path)
    other = benchmark("amazon", tmp_path, val_seed=7, val_stratified=False)
    for data in (first, other):
        data.prepare_data()
    assert list(first.texts("test")) == list(other.texts("test"))
    assert list(first.texts("val")) != list(other.texts("val"))
    assert other.protocol == "published test file; validation: 20 % of the rest, not stratified, seed 7"
    assert len(list(other.cache_dir.glob("amazon-published-val7u-*.json"))) == 1


def test_a_published_split_without_its_files_is_refused(tmp_path: Path) -> None:
    data = benchmark("wos", tmp_path, split="published")
    data.prepare_data()
    message = (
        r"^dataset\.split=published: expected wos_train\.jsonl and wos_test\.jsonl in .*raw, found the sheet .*; put"
    )
    with pytest.raises(ValueError, match=message):
        data.split_sizes()
    with pytest.raises(ValueError, match=r"^dataset\.fold=1: the published split has no folds; leave it out, or set"):
        benchmark("wos", tmp_path, split="published", fold=1)
    with pytest.raises(
        ValueError, match=r"^dataset\.split='official': expected published or folds; set dataset\.split"
    ):
        benchmark("wos", tmp_path, split="official")
    assert benchmark("wos", tmp_path).split is None
