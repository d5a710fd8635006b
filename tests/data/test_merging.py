"""Several data folders as one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import TOY_DOCUMENTS, TOY_EDGES, write_folder, write_toy

from ptmt_lightning.cli import main
from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.data.document import read_documents
from ptmt_lightning.data.hierarchy import read_taxonomy
from ptmt_lightning.data.merging import merge

CARS = [
    {"text": "red and fast", "labels": [["A", "AA"]]},
    {"text": "for many", "labels": [["Bus"], ["A"]]},
    {"text": "nothing of it", "labels": []},
]


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """The toy data, and one without a taxonomy of its own and without a test split."""
    cars = tmp_path / "cars"
    cars.mkdir()
    for split in ("train", "val"):
        (cars / f"{split}.jsonl").write_text("".join(json.dumps(document) + "\n" for document in CARS))
    return [write_toy(tmp_path / "toy"), cars]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_part_is_below_a_label_with_its_name(folders: list[Path], tmp_path: Path) -> None:
    said = merge(folders, tmp_path / "all")
    assert said == [
        f"{folders[0]}: 11 labels on 3 levels; train 24, val 6, test 7",
        f"{folders[1]}: 3 labels on 2 levels; train 3, val 3",
        f"{tmp_path / 'all'}: 16 labels on 4 levels (2 / 5 / 8 / 1)",
    ]
    whole = read_taxonomy(tmp_path / "all")
    for folder in folders:
        part = read_taxonomy(folder)
        for node in range(len(part)):
            path = [part.labels[step] for step in part.path_to(node)]
            assert whole.encode([[folder.name, *path]])
    for split, sizes in {"train": (24, 3), "val": (6, 3), "test": (7, 0)}.items():
        merged = list(read_documents(tmp_path / "all" / f"{split}.jsonl", split, whole))
        apart = [
            (folder.name, document, part)
            for folder, size in zip(folders, sizes, strict=True)
            if size
            for part in [read_taxonomy(folder)]
            for document in read_documents(folder / f"{split}.jsonl", split, part)
        ]
        assert len(merged) == len(apart) == sum(sizes)
        for one, (name, other, part) in zip(merged, apart, strict=True):
            assert one.text == other.text
            labels = [[name, *(part.labels[n] for n in part.path_to(node))] for node in other.nodes]
            assert one.nodes == tuple(whole.encode(labels))


def test_parts_are_kept_apart_to_evaluate_on(folders: list[Path], tmp_path: Path) -> None:
    merge(folders, tmp_path / "all")
    parts = sorted(
        path.relative_to(tmp_path / "all/parts").as_posix() for path in (tmp_path / "all/parts").rglob("*.*")
    )
    assert parts == ["cars/val.jsonl", "toy/test.jsonl", "toy/val.jsonl"]
    assert lines(tmp_path / "all/parts/toy/test.jsonl") == lines(tmp_path / "all/test.jsonl")
    assert lines(tmp_path / "all/val.jsonl") == [
        record for name in ("toy", "cars") for record in lines(tmp_path / f"all/parts/{name}/val.jsonl")
    ]
    assert {record["part"] for record in lines(tmp_path / "all/train.jsonl")} == {"toy", "cars"}


def test_equal_paths_become_one_label(folders: list[Path], tmp_path: Path) -> None:
    said = merge(folders, tmp_path / "all", by_path=True)
    assert said[-1] == f"{tmp_path / 'all'}: 12 labels on 3 levels (4 / 7 / 1)"
    whole = read_taxonomy(tmp_path / "all")
    assert set(whole.names) == {child for _, child in TOY_EDGES} | {"Bus"}
    data = HTCDataModule(str(tmp_path / "all"), cache_dir=str(tmp_path / "cache"))
    data.prepare_data()
    assert list(data.texts("train"))[-3:] == [document["text"] for document in CARS]


def test_the_command_merges_and_says_what_is_next(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["data", "merge", "toy", "cars", "-o", "all"])
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "written: all, documents of each part in all/parts",
        "next: ptmt train dataset=jsonl dataset.path=all",
    ]
    with pytest.raises(SystemExit, match="error: --output all: it is there already; expected a new folder"):
        main(["data", "merge", "toy", "cars", "-o", "all"])


def test_what_cannot_be_merged_is_refused(folders: list[Path], tmp_path: Path) -> None:
    toy, cars = folders
    dag = write_folder(tmp_path / "dag", [*TOY_EDGES, ("C", "AA")], train=TOY_DOCUMENTS, val=TOY_DOCUMENTS)
    other = tmp_path / "other" / "toy"
    write_toy(other)
    broken = write_folder(tmp_path / "broken", TOY_EDGES, train=[*TOY_DOCUMENTS, {"text": "x", "labels": [["D"]]}])
    for given, message in [
        ([toy, tmp_path / "none"], f"{tmp_path / 'none'}: no such folder; expected data in the project's form"),
        ([toy, other], "2 folders are named 'toy': expected a name of its own for each part"),
        ([toy, dag], f"{dag}: label 'AA' has 2 parents; expected a tree"),
        ([cars, broken], f"{broken}/train.jsonl:7: labels: label 'D' is not in the taxonomy"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            merge(given, tmp_path / "all")
    assert [path.name for path in tmp_path.glob("*all*")] == []
