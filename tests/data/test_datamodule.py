"""The data module from a folder to batches, with PTMT's own collators."""

from __future__ import annotations

import gzip
import itertools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
from conftest import TOY_DOCUMENTS, TOY_EDGES, datamodule, equal_batches, write_folder

from ptmt_lightning.backbones import Pretrained
from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.data.sample import SampleDataModule
from ptmt_lightning.models.ptmt.collator import PTMTBatch
from ptmt_lightning.models.ptmt.module import PTMT

EXPECTED = "expected a folder with train.jsonl, val.jsonl (or .gz) and, if there are, test.jsonl, taxonomy.tsv"


def connected(folder: Path, tmp_path: Path, model: PTMT, **changes: Any) -> HTCDataModule:
    data = datamodule(folder, tmp_path, **changes)
    data.prepare_data()
    data.connect(
        tokenizer=model.tokenizer,
        max_tokens=model.max_length,
        train_collator=model.collator(training=True, pad_to_multiple_of=data.pad_to_multiple_of),
        eval_collator=model.collator(training=False, pad_to_multiple_of=data.pad_to_multiple_of),
    )
    return data


def batches(data: HTCDataModule, split: str) -> list[PTMTBatch]:
    return list(getattr(data, f"{split}_dataloader")())


def rows_of(split_batches: list[PTMTBatch]) -> list[int]:
    return [row for batch in split_batches for row in batch.rows.tolist()]


# ---- what the data are ----


def test_data_are_known_by_their_content(toy_folder: Path, tmp_path: Path, toy_ptmt: PTMT) -> None:
    here = connected(toy_folder, tmp_path, toy_ptmt).fingerprint
    shutil.copytree(toy_folder, tmp_path / "elsewhere")
    content = (toy_folder / "train.jsonl").read_bytes()
    (tmp_path / "elsewhere/train.jsonl").unlink()
    (tmp_path / "elsewhere/train.jsonl.gz").write_bytes(gzip.compress(content))
    moved = connected(tmp_path / "elsewhere", tmp_path, toy_ptmt, name="other", train_fraction=0.5, batch_size=2)
    assert moved.fingerprint == here
    moved.load_state_dict({"fingerprint": here})


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: rewrite(folder / "train.jsonl", lambda lines: [*lines[1:], lines[0]]),
        lambda folder: rewrite(folder / "val.jsonl", lambda lines: lines[:-1]),
        lambda folder: (folder / "test.jsonl").unlink(),
        lambda folder: rewrite(folder / "test.jsonl", lambda lines: [*lines[:-1], lengthened(lines[-1])]),
        lambda folder: rewrite(folder / "taxonomy.tsv", lambda lines: [*lines, f"{TOY_EDGES[0][0]}\tAnother"]),
    ],
    ids=["order", "fewer", "no test", "behind the cut", "taxonomy"],
)
def test_other_data_are_not_gone_on_with(
    toy_folder: Path, tmp_path: Path, toy_ptmt: PTMT, change: Callable[[Path], None]
) -> None:
    before = connected(toy_folder, tmp_path, toy_ptmt).state_dict()
    change(toy_folder)
    after = connected(toy_folder, tmp_path, toy_ptmt)
    with pytest.raises(ValueError, match=r"its documents have changed since the run began, .*; restore the files, or"):
        after.load_state_dict(before)


def rewrite(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def lengthened(line: str) -> str:
    document = json.loads(line)
    return json.dumps(document | {"text": document["text"] + " m" * 1000})


# ---- the folder ----


def test_a_complete_folder_is_accepted(toy_folder: Path, tmp_path: Path) -> None:
    data = datamodule(toy_folder, tmp_path)
    for _ in range(2):
        data.prepare_data()
    assert data.taxonomy.level_sizes == (3, 7, 1)
    assert [data.has_split(split) for split in ("train", "val", "test")] == [True] * 3


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "nothing"
    message = f"dataset.path={str(folder)!r}: no such folder; {EXPECTED}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        datamodule(folder, tmp_path).prepare_data()


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        (["train.jsonl"], "train.jsonl"),
        (["val.jsonl"], "val.jsonl"),
        (["val.jsonl", "train.jsonl", "taxonomy.tsv"], "train.jsonl, val.jsonl"),
    ],
)
def test_missing_files_are_named(gone: list[str], named: str, toy_folder: Path, tmp_path: Path) -> None:
    for name in gone:
        (toy_folder / name).unlink()
    message = f"dataset.path={str(toy_folder)!r}: no {named} there; {EXPECTED}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        datamodule(toy_folder, tmp_path).prepare_data()


def test_two_files_of_a_split_are_refused(toy_folder: Path, tmp_path: Path) -> None:
    (toy_folder / "val.jsonl.gz").touch()
    message = f"{toy_folder}: both val.jsonl and val.jsonl.gz are there; delete one of the two"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        datamodule(toy_folder, tmp_path).prepare_data()


def test_a_bad_document_is_refused_when_the_model_connects(toy_folder: Path, tmp_path: Path, toy_ptmt: PTMT) -> None:
    (toy_folder / "val.jsonl").write_text('{"text": "m", "labels": [["A", "BB"]]}\n')
    message = f"{toy_folder / 'val.jsonl'}:1: labels: path 'A > BB' is not in the taxonomy"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        connected(toy_folder, tmp_path, toy_ptmt)


def test_a_folder_without_test_split_works(toy_folder: Path, tmp_path: Path, toy_ptmt: PTMT) -> None:
    (toy_folder / "test.jsonl").unlink()
    data = connected(toy_folder, tmp_path, toy_ptmt)
    assert not data.has_split("test")
    assert sorted(rows_of(batches(data, "val"))) == list(range(6))


def test_texts_are_streamed_raw(toy_folder: Path, tmp_path: Path) -> None:
    texts = list(datamodule(toy_folder, tmp_path).texts("val"))
    assert texts == [document["text"] for document in TOY_DOCUMENTS]


def test_texts_of_a_missing_split_are_refused(toy_folder: Path, tmp_path: Path) -> None:
    (toy_folder / "test.jsonl").unlink()
    message = f"dataset.path={str(toy_folder)!r}: no test.jsonl (or .gz) there"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        datamodule(toy_folder, tmp_path).texts("test")


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("batch_size", 0, "dataset.batch_size=0: expected an integer >= 1; set dataset.batch_size to one"),
        ("batch_size", 2.5, "dataset.batch_size=2.5: expected an integer >= 1"),
        ("batch_size", True, "dataset.batch_size=True: expected an integer >= 1"),
        ("batch_size", "8", "dataset.batch_size='8': expected an integer >= 1"),
        ("eval_batch_size", 0, "dataset.eval_batch_size=0: expected an integer >= 1"),
        ("train_fraction", 1.5, "dataset.train_fraction=1.5: expected a number in (0, 1]"),
        ("train_fraction", -0.1, "dataset.train_fraction=-0.1: expected a number in (0, 1]"),
        ("train_fraction", float("nan"), "dataset.train_fraction=nan: expected a number in (0, 1]"),
        ("num_workers", -1, "impl.num_workers=-1: expected an integer >= 0; set impl.num_workers to one"),
        ("pad_to_multiple_of", 0, "impl.pad_to_multiple_of=0: expected an integer >= 1"),
    ],
)
def test_bad_settings_are_refused(setting: str, value: object, message: str, toy_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        datamodule(toy_folder, tmp_path, **{setting: value})


# ---- batches ----


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize(("split", "size"), [("val", 6), ("test", 7)])
def test_evaluation_covers_every_document_once(
    split: str, size: int, batch_size: int, toy_folder: Path, tmp_path: Path, toy_ptmt: PTMT
) -> None:
    data = connected(toy_folder, tmp_path, toy_ptmt, eval_batch_size=batch_size)
    assert sorted(rows_of(batches(data, split))) == list(range(size))


@pytest.mark.parametrize("batch_size", [1, 5, 100])
def test_training_covers_every_document_once(batch_size: int, toy_folder: Path, tmp_path: Path, toy_ptmt: PTMT) -> None:
    data = connected(toy_folder, tmp_path, toy_ptmt, batch_size=batch_size)
    assert sorted(rows_of(batches(data, "train"))) == list(range(24))
    assert max(len(batch.rows) for batch in batches(data, "train")) == min(batch_size, 24)


def test_evaluation_batches_are_twice_as_large_by_default(toy_folder: Path, tmp_path: Path, toy_ptmt: PTMT) -> None:
    data = connected(toy_folder, tmp_path, toy_ptmt, batch_size=3)
    assert [len(batch.rows) for batch in batches(data, "val")] == [6]


def test_batches_hold_the_documents_of_their_rows(toy_folder: Path, tmp_path: Path, toy_ptmt: PTMT) -> None:
    data = connected(toy_folder, tmp_path, toy_ptmt)
    for batch in batches(data, "val"):
        for row, ids, targets in zip(batch.rows.tolist(), batch.input_ids, batch.targets, strict=True):
            document = TOY_DOCUMENTS[row]
            text = toy_ptmt.tokenizer(document["text"], add_special_tokens=False)["input_ids"]
            assert ids[1 : 1 + len(text)].tolist() == text
            assert targets.nonzero().flatten().tolist() == data.taxonomy.encode(document["labels"])


def test_only_training_batches_mask_text(toy_folder: Path, tmp_path: Path, toy_ptmt: PTMT) -> None:
    data = connected(toy_folder, tmp_path, toy_ptmt)
    assert sum(len(batch.mlm_ids) for batch in batches(data, "train")) > 0
    assert sum(len(batch.mlm_ids) for batch in batches(data, "val")) == 0


def test_widths_are_padded_to_a_multiple(toy_folder: Path, tmp_path: Path, toy_ptmt: PTMT) -> None:
    data = connected(toy_folder, tmp_path, toy_ptmt, pad_to_multiple_of=8)
    assert {batch.input_ids.shape[1] % 8 for split in ("train", "val") for batch in batches(data, split)} == {0}


@pytest.mark.parametrize("split", ["train", "val"])
def test_workers_make_the_same_batches(split: str, toy_folder: Path, tmp_path: Path, toy_ptmt: PTMT) -> None:
    here = batches(connected(toy_folder, tmp_path, toy_ptmt), split)
    in_workers = batches(connected(toy_folder, tmp_path, toy_ptmt, num_workers=2), split)
    assert len(here) == len(in_workers)
    assert all(equal_batches(one, other) for one, other in zip(here, in_workers, strict=True))


class _Watch(L.Callback):
    """Keeps the training batches of each epoch."""

    def __init__(self) -> None:
        self.epochs: list[list[PTMTBatch]] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.epochs.append([])

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: PTMTBatch, batch_idx: int
    ) -> None:
        self.epochs[-1].append(batch)


@pytest.fixture
def two_epochs(toy_folder: Path, tmp_path: Path, toy_ptmt: PTMT) -> list[list[PTMTBatch]]:
    watch = _Watch()
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", callbacks=[watch], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(toy_ptmt, connected(toy_folder, tmp_path, toy_ptmt))
    return watch.epochs


def test_each_epoch_of_a_trainer_covers_every_document(two_epochs: list[list[PTMTBatch]]) -> None:
    assert [sorted(rows_of(epoch)) for epoch in two_epochs] == [list(range(24))] * 2


def test_each_epoch_of_a_trainer_has_other_batches(two_epochs: list[list[PTMTBatch]]) -> None:
    """Lightning has to find ``set_epoch``: else every epoch repeats the batches and masks of the first."""
    assert rows_of(two_epochs[0]) != rows_of(two_epochs[1])


# ---- part of the training split ----


def used(folder: Path, tmp_path: Path, model: PTMT, **changes: Any) -> set[int]:
    return set(rows_of(batches(connected(folder, tmp_path, model, **changes), "train")))


def test_a_smaller_share_is_part_of_a_larger(toy_folder: Path, tmp_path: Path, toy_ptmt: PTMT) -> None:
    shares = [used(toy_folder, tmp_path, toy_ptmt, train_fraction=share) for share in (0.1, 0.25, 0.5, 1.0)]
    assert [len(share) for share in shares] == [2, 6, 12, 24]
    assert all(small < large for small, large in itertools.pairwise(shares))


def test_a_share_depends_on_the_seed(toy_folder: Path, tmp_path: Path, toy_ptmt: PTMT) -> None:
    one, other = (used(toy_folder, tmp_path, toy_ptmt, train_fraction=0.5, seed=seed) for seed in (0, 1))
    assert one != other


def test_at_least_one_document_is_used(toy_folder: Path, tmp_path: Path, toy_ptmt: PTMT) -> None:
    data = connected(toy_folder, tmp_path, toy_ptmt, train_fraction=0.001)
    assert data.num_documents("train") == 1
    assert len(rows_of(batches(data, "train"))) == 1


def test_no_share_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dataset\.train_fraction=0: expected a number in \(0, 1\]"):
        datamodule(tmp_path, tmp_path, train_fraction=0)


def test_a_share_leaves_the_other_splits_whole(toy_folder: Path, tmp_path: Path, toy_ptmt: PTMT) -> None:
    data = connected(toy_folder, tmp_path, toy_ptmt, train_fraction=0.25)
    assert [data.num_documents(split) for split in ("train", "val", "test")] == [6, 6, 7]


# ---- what else it tells ----


def test_document_ids_are_split_and_line(toy_folder: Path, tmp_path: Path, toy_ptmt: PTMT) -> None:
    data = connected(toy_folder, tmp_path, toy_ptmt)
    assert data.document_ids("test", [6, 0]) == ["test:7", "test:1"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([[["A"]], [["B"], ["C"]]], (2, "train:2", 1)),
        ([[["A", "AA"]], [["A", "AB"], ["A", "AA"], ["A", "AC"]], [["A"], ["B"]]], (3, "train:2", 2)),
        ([[["A", "AA", "AAA"]]], (1, "train:1", 1)),
    ],
)
def test_most_labels_at_a_level(
    labels: list[Any], expected: tuple[int, str, int], tmp_path: Path, toy_ptmt: PTMT
) -> None:
    documents = [{"text": "m", "labels": paths} for paths in labels]
    folder = write_folder(tmp_path / "few", TOY_EDGES, train=documents, val=TOY_DOCUMENTS)
    assert connected(folder, tmp_path, toy_ptmt).most_labels_at_a_level("train") == expected


def test_the_sample_is_written_on_first_use(tmp_path: Path) -> None:
    data = SampleDataModule(
        name="sample", path=str(tmp_path / "sample"), batch_size=4, cache_dir=str(tmp_path / "cache")
    )
    for _ in range(2):
        data.prepare_data()
    assert data.has_split("test")
    assert len(data.taxonomy) >= 40


def test_a_tilde_is_the_home_folder(toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(toy_folder.parent))
    module = HTCDataModule(f"~/{toy_folder.name}", cache_dir="~/cache")
    module.prepare_data()
    assert (module.path, module.cache_dir) == (toy_folder, toy_folder.parent / "cache")
    assert Pretrained(f"~/{toy_folder.name}").name == str(toy_folder)
