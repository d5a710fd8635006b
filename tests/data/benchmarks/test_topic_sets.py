"""NYT and RCV1-v2 as JSON lines beside a taxonomy of names, as HGCLR has them."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from data.benchmarks.raw_topics import NYT_LABELS, NYT_TAXONOMY, topic_files
from raw import module, prepared, put, refused

from ptmt_lightning.cli import main
from ptmt_lightning.data.benchmarks.nyt import NYTDataModule
from ptmt_lightning.data.benchmarks.rcv1 import RCV1DataModule

FILES = topic_files("nyt", NYT_TAXONOMY, NYT_LABELS)
SPORTS, GOLF = ["Top/News", "Top/News/Sports"], ["Top/News", "Top/News/Sports", "Top/News/Sports/Golf"]


def data(tmp_path: Path, files: dict[str, Any], kind: Any = NYTDataModule) -> Any:
    return module(kind, put(tmp_path / "data", files))


def with_first(line: str) -> dict[str, str]:
    return FILES | {"nyt_train.json": f"{line}\n{FILES['nyt_train.json']}"}


def test_ancestors_are_filled_in_and_splits_are_the_files(tmp_path: Path) -> None:
    nyt = data(tmp_path, FILES)
    content = prepared(nyt)
    assert content["train"][:2] == [("Article 0 of train", [SPORTS]), ("Article 1 of train", [["Top/Opinion"], GOLF])]
    assert [len(content[split]) for split in ("train", "val", "test")] == [6, 3, 3]
    assert nyt.taxonomy.level_sizes == (2, 1, 1)
    assert nyt.protocol == "official splits"


@pytest.mark.parametrize(
    "line",
    [
        '{"token": "A text.", "label": ["Top/News"]}',
        '{"doc_token": ["A", "text."], "doc_label": ["Top/News"], "doc_topic": [], "doc_keyword": []}',
    ],
)
def test_texts_whole_and_keys_of_hiagm(line: str, tmp_path: Path) -> None:
    assert prepared(data(tmp_path, with_first(line)))["train"][0] == ("A text.", [["Top/News"]])


def test_names_of_hbgl_and_packed_files(tmp_path: Path) -> None:
    files = {
        "nyt.taxonomy": FILES["nyt.taxonomy"],
        "nyt_train_all.json": FILES["nyt_train.json"],
        "nyt_dev.json": FILES["nyt_val.json"],
        "nyt_test_all.json.gz": gzip.compress(FILES["nyt_test.json"].encode()),
    }
    assert prepared(data(tmp_path / "named", files)) | {"summary": 0} == prepared(data(tmp_path, FILES)) | {
        "summary": 0
    }


def test_rcv1_in_this_form(tmp_path: Path) -> None:
    files = topic_files("rcv1", "Root\tCCAT\tMCAT\nCCAT\tC15\n", [["C15", "CCAT"], ["MCAT"]])
    rcv1 = data(tmp_path, files, RCV1DataModule)
    assert prepared(rcv1)["val"][0] == ("Article 0 of val", [["CCAT", "C15"]])
    assert rcv1.protocol == "the splits of the JSON files"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"token": "A"', "invalid JSON ("),
        ("[1]", 'expected a JSON object {"token": "..." or ["...", ...], "label": ["topic", ...]}, got list'),
        ('{"text": "A", "label": []}', "no key 'token' or 'doc_token', found ['label', 'text']; expected {"),
        ('{"token": 3, "label": ["Top/News"]}', "token=3: expected a text or its words; correct the line"),
        ('{"token": "A", "label": []}', "label=[]: expected the names of one topic or more; delete the line"),
        (
            '{"token": "A", "label": [3, 4]}',
            "label=[3, 4]: expected the names of one topic or more; numbers stand for ",
        ),
        ('{"token": "A", "label": ["Golf"]}', "topic 'Golf' is not in nyt.taxonomy; expected one of its names"),
    ],
)
def test_broken_lines_are_refused_by_number(line: str, message: str, tmp_path: Path) -> None:
    refused(data(tmp_path, with_first(line)), f"{tmp_path / 'data/raw/nyt_train.json'}:1: {message}")


@pytest.mark.parametrize(
    ("taxonomy", "message"),
    [
        ("Root\tTop/News\nTop/News\n", "nyt.taxonomy:2: 'Top/News': expected 'parent<TAB>child<TAB>child...'"),
        ("Root\tTop/News\t\tTop/Opinion\n", "nyt.taxonomy:1: 'Root\\tTop/News\\t\\tTop/Opinion': expected 'parent"),
        ("Top/News\tTop/News/Sports\n", "nyt.taxonomy, edges:1: 'Top/News' has no way to the root"),
    ],
)
def test_broken_taxonomies_are_refused(taxonomy: str, message: str, tmp_path: Path) -> None:
    refused(data(tmp_path, FILES | {"nyt.taxonomy": taxonomy}), message)


def test_licensed_files_that_are_missing_are_asked_for(tmp_path: Path) -> None:
    expected = (
        f"{tmp_path / 'data/raw'}: expected nyt_train.json, nyt_val.json and nyt_test.json with nyt.taxonomy; found "
        "{}. Put them there: nothing is downloaded, because the data are licensed (https://catalog.ldc.upenn.edu/LDC2008T19)"
    )
    refused(data(tmp_path, {}), expected.format("nothing"))
    with pytest.raises(SystemExit) as stop:
        main(["data", "download", "nyt", "--path", str(tmp_path / "data")])
    assert str(stop.value) == f"error: {expected.format('nothing')}"
    refused(data(tmp_path, {"nyt.taxonomy": NYT_TAXONOMY}), expected.format("nyt.taxonomy"))
