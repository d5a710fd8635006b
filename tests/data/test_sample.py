"""The built-in sample: reproducible, readable, and hard enough to be worth learning."""

from __future__ import annotations

import itertools
import re
import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from ptmt_lightning.data.document import SPLITS, Document, read_documents
from ptmt_lightning.data.kinds import fitting_dataset, is_sample
from ptmt_lightning.data.sample import SampleDataModule, write_sample
from ptmt_lightning.launch.checks import check_overrides
from ptmt_lightning.taxonomy import Taxonomy

FILES = ["taxonomy.tsv", "test.jsonl", "train.jsonl", "val.jsonl"]


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


def test_only_the_files_of_a_data_folder_are_written(sample: Path) -> None:
    assert sorted(path.name for path in sample.iterdir()) == FILES
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
    write_sample(tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (sample / name).read_bytes()


def test_the_taxonomy_is_deep_and_wide_enough(taxonomy: Taxonomy) -> None:
    assert taxonomy.num_levels >= 3
    assert len(taxonomy) >= 40
    assert all(len(parents) <= 1 for parents in taxonomy.parents)


def test_leaves_lie_on_more_than_one_level(taxonomy: Taxonomy) -> None:
    inner = {parent for parents in taxonomy.parents for parent in parents}
    assert len({taxonomy.levels[node] for node in range(len(taxonomy)) if node not in inner}) > 1


def test_splits_are_large_enough_and_share_no_text(documents: dict[str, list[Document]]) -> None:
    assert all(len(documents[split]) >= 500 for split in SPLITS)
    assert len(documents["train"]) > len(documents["test"])
    train = {document.text for document in documents["train"]}
    assert not train & {document.text for split in ("val", "test") for document in documents[split]}


@pytest.mark.parametrize("split", SPLITS)
def test_every_node_occurs(split: str, documents: dict[str, list[Document]], taxonomy: Taxonomy) -> None:
    assert {node for document in documents[split] for node in document.nodes} == set(range(len(taxonomy)))


@pytest.mark.parametrize("split", SPLITS)
def test_some_documents_have_several_paths(
    split: str, documents: dict[str, list[Document]], taxonomy: Taxonomy
) -> None:
    counts = [len(taxonomy.label_paths(document.nodes)) for document in documents[split]]
    assert 0.5 < counts.count(1) / len(counts) < 0.9
    assert max(counts) == 3


@pytest.mark.parametrize("split", SPLITS)
def test_some_paths_end_at_an_inner_node(split: str, documents: dict[str, list[Document]], taxonomy: Taxonomy) -> None:
    inner = {parent for parents in taxonomy.parents for parent in parents}
    ends = [path[-1] for document in documents[split] for path in taxonomy.label_paths(document.nodes)]
    assert 0.05 < sum(end in inner for end in ends) / len(ends) < 0.5
    assert {taxonomy.levels[end] for end in ends} == {1, 2, 3}


def test_siblings_share_words(documents: dict[str, list[Document]], taxonomy: Taxonomy) -> None:
    """Documents of one path, words of other branches (so filler, too) left out: what remains of two siblings meets."""
    words = defaultdict(set)
    for document in documents["train"]:
        if len(taxonomy.label_paths(document.nodes)) == 1:
            for node in document.nodes:
                words[node].update(document.text.split())
    below = defaultdict(list)
    for node, parents in enumerate(taxonomy.parents):
        for parent in parents:
            below[parent].append(node)
    tops = range(*taxonomy.level_slices[0].indices(len(taxonomy)))
    for top in tops:
        elsewhere = set().union(*(words[other] for other in tops if other != top))
        for one, other in itertools.combinations(below[top], 2):
            shared = (words[one] & words[other]) - elsewhere
            assert len(shared) >= 3, (taxonomy.names[one], taxonomy.names[other])


def test_no_text_names_its_labels(documents: dict[str, list[Document]], taxonomy: Taxonomy) -> None:
    names = set(taxonomy.names)
    assert not any(names & set(document.text.split()) for document in documents["train"])


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
    check_overrides(["dataset.path=data/sample-v1", "experiment=demo"])
    check_overrides(["dataset.path=/data/mine", "dataset=bgc"])
