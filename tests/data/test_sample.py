"""The built-in sample: reproducible, readable, and such that words alone don't tell the labels."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from ptmt_lightning.data.document import SPLITS, Document, read_documents
from ptmt_lightning.data.kinds import fitting_dataset, is_sample
from ptmt_lightning.data.sample import SampleDataModule, write_sample
from ptmt_lightning.data.sample.grammar import KINDS, PARTS
from ptmt_lightning.launch.checks import check_overrides
from ptmt_lightning.taxonomy import Taxonomy

FILES = {
    "taxonomy.tsv": "215e3403b32eb6d6",
    "test.jsonl": "d8f14cb07df9332a",
    "train.jsonl": "2945a69b900edd59",
    "val.jsonl": "d9d0cde27d27253a",
}  # fmt: skip


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample") / "not yet there" / "sample"
    write_sample(folder)
    return folder


@pytest.fixture(scope="module")
def taxonomy(sample: Path) -> Taxonomy:
    return Taxonomy.from_tsv(sample / "taxonomy.tsv")


@pytest.fixture(scope="module")
def documents(sample: Path, taxonomy: Taxonomy) -> dict[str, list[Document]]:
    return {split: list(read_documents(sample / f"{split}.jsonl", split, taxonomy)) for split in SPLITS}


@pytest.fixture(scope="module")
def records(sample: Path) -> list[dict[str, Any]]:
    """What the lines of all splits say."""
    return [json.loads(line) for split in SPLITS for line in (sample / f"{split}.jsonl").open(encoding="utf-8")]


def test_only_the_files_of_a_data_folder_are_written(sample: Path) -> None:
    assert {path.name for path in sample.iterdir()} == set(FILES)
    assert list(sample.parent.glob("*.tmp")) == []


def test_the_sample_is_written_once(sample: Path) -> None:
    before = {name: (sample / name).stat().st_mtime_ns for name in FILES}
    write_sample(sample)
    assert {name: (sample / name).stat().st_mtime_ns for name in FILES} == before


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "sample").mkdir()
    write_sample(tmp_path / "sample")
    assert list((tmp_path / "sample").iterdir()) == []


def test_the_sample_is_the_same_everywhere(sample: Path, tmp_path: Path) -> None:
    """Each time, and as it was when its figures were measured: who changes it names a new folder in ``conf``."""
    write_sample(tmp_path / "again")
    for folder in (sample, tmp_path / "again"):
        assert {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()[:16] for name in FILES} == FILES


def test_the_taxonomy_has_three_levels_and_names_that_recur(taxonomy: Taxonomy) -> None:
    assert taxonomy.level_sizes == (5, 19, 41)
    assert all(len(parents) <= 1 for parents in taxonomy.parents)
    assert taxonomy.labels.count("Screen") == 5
    assert len(set(taxonomy.names)) == len(taxonomy)


def test_leaves_lie_on_more_than_one_level(taxonomy: Taxonomy) -> None:
    inner = {parent for parents in taxonomy.parents for parent in parents}
    assert {taxonomy.levels[node] for node in range(len(taxonomy)) if node not in inner} == {2, 3}


def test_splits_are_large_enough(documents: dict[str, list[Document]]) -> None:
    assert all(len(documents[split]) >= 1000 for split in SPLITS)
    assert len(documents["train"]) > len(documents["test"])


def test_no_text_occurs_twice(records: list[dict[str, Any]]) -> None:
    texts = [record["text"] for record in records]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("split", SPLITS)
def test_every_node_occurs(split: str, documents: dict[str, list[Document]], taxonomy: Taxonomy) -> None:
    assert {node for document in documents[split] for node in document.nodes} == set(range(len(taxonomy)))


@pytest.mark.parametrize("split", SPLITS)
def test_some_documents_have_several_paths(
    split: str, documents: dict[str, list[Document]], taxonomy: Taxonomy
) -> None:
    counts = [len(taxonomy.label_paths(document.nodes)) for document in documents[split]]
    assert 0.25 < counts.count(1) / len(counts) < 0.5
    assert 0.1 < sum(count > 2 for count in counts) / len(counts) < 0.3
    assert max(counts) == 4


@pytest.mark.parametrize("split", SPLITS)
def test_some_paths_end_at_an_inner_node(split: str, documents: dict[str, list[Document]], taxonomy: Taxonomy) -> None:
    inner = {parent for parents in taxonomy.parents for parent in parents}
    ends = [path[-1] for document in documents[split] for path in taxonomy.label_paths(document.nodes)]
    assert 0.05 < sum(end in inner for end in ends) / len(ends) < 0.5
    assert {taxonomy.levels[end] for end in ends} == {1, 2, 3}


def test_every_label_is_mentioned(records: list[dict[str, Any]]) -> None:
    """A device or part by its name, a fault by its verb, as in ``cracks`` or ``does not crack``."""
    for record in records:
        words = set(re.findall(r"\w+", record["text"].lower()))
        for path in record["labels"]:
            for name in path[:2]:
                assert name.lower() in words, record
            assert len(path) < 3 or {path[2].lower(), path[2].lower().removesuffix("s")} & words, record


def test_no_gap_is_left_open(records: list[dict[str, Any]]) -> None:
    for record in records:
        assert re.fullmatch(r"(?:[A-Z][A-Za-z ,:']*[.?] ?)+(?<! )", record["text"]), record
        assert not re.search(r"  | [,.?:]|,,", record["text"]), record


def test_all_passages_are_used(records: list[dict[str, Any]]) -> None:
    texts = " ".join(record["text"] for record in records)
    for passage in (passage for kind in KINDS for passage in kind):
        pattern = re.escape(passage.text).replace(r"\{which\}", r"(, which [\w ]+)?")
        pattern = re.sub(r"\\{(d|e)\\}", r"(\\w+ )?\\w+", pattern).replace(r"\{often\}", r"(\w+ )?")
        assert re.search(re.sub(r"\\{\w\\}", r"\\w+", pattern), texts), passage


def test_words_alone_do_not_tell_the_labels(documents: dict[str, list[Document]], taxonomy: Taxonomy) -> None:
    """Of the faults whose device, part and verb all are in a text, a good part is not among its labels."""
    told = said = 0
    for document in documents["test"]:
        words = set(re.findall(r"\w+", document.text.lower()))
        words |= {f"{word}s" for word in words}
        for node in range(*taxonomy.level_slices[2].indices(len(taxonomy))):
            path = taxonomy.path_to(node)
            if all(taxonomy.labels[step].lower() in words for step in path):
                said += 1
                told += node in document.nodes
    assert 0.2 < told / said < 0.6


def test_all_devices_share_a_part() -> None:
    assert set.intersection(*(set(parts) for parts in PARTS.values())) == {"Screen"}


# ---- other data where the sample is looked for ----


def test_the_sample_is_known_by_its_taxonomy(sample: Path, tmp_path: Path) -> None:
    assert is_sample(sample)
    shutil.copytree(sample, tmp_path / "other")
    (tmp_path / "other/taxonomy.tsv").write_text("ROOT\tA\n")
    assert not is_sample(tmp_path / "other")
    assert not is_sample(tmp_path / "not there")


@pytest.mark.parametrize(
    ("files", "name", "expected"),
    [
        (["train.jsonl", "val.jsonl", "taxonomy.tsv"], "", "dataset=jsonl"),
        (["train.jsonl.gz", "val.jsonl"], "", "dataset=jsonl"),
        (["train.csv", "test.csv"], "", "dataset=table"),
        (["train.jsonl"], "", "dataset=table"),
        (["texts.xlsx"], "texts.xlsx", "dataset=table"),
        ([], "texts.CSV.gz", "dataset=table"),
        (["taxonomy.tsv"], "", "dataset=jsonl (a folder with train.jsonl and val.jsonl) or dataset=table (a table)"),
        ([], "nowhere", "dataset=jsonl (a folder with train.jsonl and val.jsonl) or dataset=table (a table)"),
    ],
)
def test_for_other_data_the_fitting_data_set_is_named(
    files: list[str], name: str, expected: str, tmp_path: Path
) -> None:
    for file in files:
        (tmp_path / file).touch()
    path = f"{tmp_path}/{name}".rstrip("/")
    assert fitting_dataset(path) == expected
    assert fitting_dataset("hf://ann/reviews@v1") == "dataset=table"
    with pytest.raises(ValueError, match=rf"^dataset.path={path}: without dataset=, .* add {re.escape(expected)}$"):
        check_overrides(["backbone=tiny", f"dataset.path={path}"])
    check_overrides([f"dataset.path={path}", "dataset=sample"])
    if Path(path).exists():
        data = SampleDataModule(path)
        with pytest.raises(
            ValueError, match=rf"^dataset.path='{path}': not the built-in .* set {re.escape(expected)}$"
        ):
            data.prepare_data()


def test_a_sample_elsewhere_needs_no_name_of_the_data_set(sample: Path) -> None:
    check_overrides([f"dataset.path={sample}"])
    check_overrides(["dataset.path=data/sample-v2", "experiment=demo"])
    check_overrides(["dataset.path=/data/mine", "dataset=bgc"])
