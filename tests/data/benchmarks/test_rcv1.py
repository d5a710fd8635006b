"""RCV1-v2: the token files of LYRL2004, and their published split."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path
from typing import Any

import pytest
from raw import module, prepared, put, refused
from raw_topics import RCV1_HIERARCHY, RCV1_PATHS, rcv1_files, rcv1_story
from sklearn.model_selection import train_test_split

from ptmt_lightning.data.benchmarks.rcv1 import RCV1DataModule, Topics, read_hierarchy, read_tokens
from ptmt_lightning.data.benchmarks.table2 import compare

TRAIN, QRELS = "lyrl2004_tokens_train.dat", "rcv1-v2.topics.qrels"


def data(tmp_path: Path, files: dict[str, str | bytes], **changes: Any) -> RCV1DataModule:
    found: RCV1DataModule = module(RCV1DataModule, put(tmp_path / "rcv1", files), **changes)
    return found


def document(number: int) -> tuple[str, list[list[str]]]:
    return f"stem{number} market profit rose", RCV1_PATHS[number % 3]


def same(found: list[Any], expected: list[Any]) -> bool:
    """Equal but for the order of a document's paths."""
    return [(text, sorted(paths)) for text, paths in found] == [(text, sorted(paths)) for text, paths in expected]


def test_the_published_split_and_validation_from_its_training_part(tmp_path: Path) -> None:
    rcv1 = data(tmp_path, rcv1_files())
    content = prepared(rcv1)
    train, val = train_test_split(range(2286, 2306), test_size=0.1, random_state=0)
    assert same(content["train"], [document(number) for number in train])
    assert same(content["val"], [document(number) for number in val])
    assert same(content["test"], [document(number) for number in range(2306, 2314)])
    assert rcv1.protocol == "split of LYRL2004; validation: 10 % of its training documents, seed 0"
    assert rcv1.taxonomy.level_sizes == (2, 2, 1, 1)


def test_another_seed_draws_other_validation_documents_and_keeps_the_test(tmp_path: Path) -> None:
    first, other = (prepared(data(tmp_path / str(seed), rcv1_files(), val_seed=seed)) for seed in (0, 1))
    assert first["val"] != other["val"]
    assert first["test"] == other["test"]


def test_files_may_be_gzip_in_part(tmp_path: Path) -> None:
    files = rcv1_files()
    packed = {f"{name}.gz": gzip.compress(str(files[name]).encode()) for name in (TRAIN, QRELS)}
    plain = {name: content for name, content in files.items() if name not in (TRAIN, QRELS)}
    assert prepared(data(tmp_path / "packed", plain | packed))["train"] == prepared(data(tmp_path, files))["train"]


def test_figures_stand_beside_the_published_ones(tmp_path: Path) -> None:
    rcv1 = data(tmp_path, rcv1_files())
    rcv1.prepare_data()
    rows = {row.measure: row for row in compare(rcv1)}
    assert rows["labels a level"].paper == "4-55-43-1"
    assert rows["mean characters"][2:] == ("-", "")
    assert rows["test"][1:3] == ("8", "781,265")


def test_stories_are_read_one_after_the_other(tmp_path: Path) -> None:
    """The first of them is there before the file's broken end is reached."""
    folder = put(tmp_path, {"a.dat": rcv1_story(2286) * 100 + "oops .I\n", **rcv1_files()}) / "raw"
    stories = read_tokens([folder / "a.dat"], Topics(folder / QRELS, read_hierarchy(folder / "rcv1.topics.hier.orig")))
    assert [story.text for story in itertools.islice(stories, 2)] == ["stem2286 market profit rose"] * 2


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (TRAIN, ".I 2287\n", ".I 22x\n", "{raw}/{name}:6: '.I 22x': expected '.I' and a story's number; fetch the"),
        (TRAIN, ".I 2286\n", "stem\n.I 2286\n", "{raw}/{name}:1: 'stem': expected '.I' and a story's number; fetch"),
        (TRAIN, ".I 2287\n.W\n", ".I 2287\n", "{raw}/{name}:7: 'stem2287 market': expected '.W'; fetch the file again"),
        (TRAIN, ".I 2287\n", ".I 9\n", f"{{raw}}/{{name}}:6: story 9 has no topic in {QRELS}; fetch both files again"),
        (QRELS, " 2286 1\n", " 2286\n", "{raw}/{name}:1: 'C1511 2286': expected 'TOPIC STORY 1'; fetch the file again"),
        (QRELS, "C15 2286", "C99 2286", "{raw}/{name}:3: topic 'C99' is not in rcv1.topics.hier.orig; expected one of"),
        ("rcv1.topics.hier.orig", "child: CCAT", "CCAT", "{raw}/{name}:2: 'parent: Root        CCAT         child-des"),
    ],
)
def test_broken_lines_are_refused_by_name(name: str, old: str, new: str, message: str, tmp_path: Path) -> None:
    files = rcv1_files()
    assert old in str(files[name])
    files[name] = str(files[name]).replace(old, new, 1)
    refused(data(tmp_path, files), message.format(raw=tmp_path / "rcv1/raw", name=name))


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    files = rcv1_files() | {"lyrl2004_tokens_test_pt3.dat": rcv1_story(2312) + ".I 2313\n"}
    refused(data(tmp_path, files), "test_pt3.dat:6: no '.W' for story 2313; the file is cut off, fetch it again")
    put(tmp_path / "rcv1", {"lyrl2004_tokens_test_pt3.dat": "\n"})
    refused(data(tmp_path, {}), "test_pt3.dat: no story in it; fetch the file again")


def test_missing_files_and_two_forms_at_once_are_refused(tmp_path: Path) -> None:
    files = rcv1_files()
    del files[QRELS]
    refused(
        data(tmp_path / "part", files),
        "expected one of: lyrl2004_tokens_train.dat, lyrl2004_tokens_test_pt0.dat, ",
        "rcv1-v2.topics.qrels, rcv1.topics.hier.orig, each plain or .gz; the licensed texts as rcv1_train.json, "
        "rcv1_val.json and rcv1_test.json with rcv1.taxonomy; found lyrl2004_tokens_test_pt0.dat, ",
        "or empty the folder to download them",
    )
    refused(data(tmp_path / "both", rcv1_files() | {"rcv1_train.json": "{}"}), "expected one of: ")


def test_a_setting_out_of_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dataset\.val_seed=-1: expected"):
        data(tmp_path, {}, val_seed=-1)


def test_the_hierarchy_has_no_root_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "h").write_text(RCV1_HIERARCHY)
    assert read_hierarchy(tmp_path / "h").names == ("CCAT", "MCAT", "C15", "M11", "C151", "C1511")
