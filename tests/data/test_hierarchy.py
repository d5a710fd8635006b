"""Data folders without ``taxonomy.tsv``: the tree of their documents' label paths."""

from __future__ import annotations

import gzip
import json
import logging
import re
from pathlib import Path
from unicodedata import normalize

import pytest
from conftest import TOY_DOCUMENTS, TOY_EDGES, datamodule
from hypothesis import given
from hypothesis import strategies as st
from random_taxonomies import path_lists, quick

from ptmt_lightning.data.document import read_documents
from ptmt_lightning.data.hierarchy import read_taxonomy
from ptmt_lightning.taxonomy import Taxonomy


def write_split(folder: Path, split: str, *labels: object, compress: bool = False) -> None:
    content = "".join(json.dumps({"text": "m", "labels": paths}) + "\n" for paths in labels).encode()
    path = folder / f"{split}.jsonl{'.gz' * compress}"
    path.write_bytes(gzip.compress(content) if compress else content)


def test_nodes_are_in_the_order_of_first_occurrence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_split(tmp_path, "test", [["D", "X"]], [["A"]])
    write_split(tmp_path, "val", [["C", "X"], ["A", "Z"]], compress=True)
    write_split(tmp_path, "train", [["B", "Y"], ["A"]], [], [["A", "X"]])
    with caplog.at_level(logging.INFO):
        taxonomy = read_taxonomy(tmp_path)
    assert taxonomy.names == ("B", "A", "C", "D", "Y", "A > X", "C > X", "Z", "D > X")
    assert caplog.messages == [
        f"{tmp_path}: no taxonomy.tsv there; taken from the label paths: 9 labels on 2 levels (4 / 5), 5 of them in "
        "no training document"
    ]


@quick
@given(documents=st.lists(path_lists(), min_size=1, max_size=5))
def test_documents_have_the_nodes_of_their_paths(
    documents: list[list[tuple[str, ...]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    write_split(
        folder, "train", *[[[normalize("NFD", name) for name in path] for path in paths] for paths in documents]
    )
    taxonomy = read_taxonomy(folder)
    read = read_documents(folder / "train.jsonl", "train", taxonomy)
    for document, paths in zip(read, documents, strict=True):
        assert list(document.nodes) == taxonomy.encode(paths)
    assert taxonomy.fingerprint == Taxonomy.from_paths([path for paths in documents for path in paths]).fingerprint


def test_a_taxonomy_file_comes_first(toy_folder: Path, tmp_path: Path) -> None:
    (toy_folder / "taxonomy.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in [*TOY_EDGES, ("C", "unused")]))
    assert "unused" in datamodule(toy_folder, tmp_path).taxonomy.names


def test_a_folder_without_it_is_accepted(toy_folder: Path, tmp_path: Path) -> None:
    (toy_folder / "taxonomy.tsv").unlink()
    data = datamodule(toy_folder, tmp_path)
    data.prepare_data()
    paths = [path for document in TOY_DOCUMENTS for path in document["labels"]]
    assert data.taxonomy.fingerprint == Taxonomy.from_paths(paths).fingerprint


def test_a_file_that_cannot_be_read_is_not_passed_over(toy_folder: Path, tmp_path: Path) -> None:
    (toy_folder / "taxonomy.tsv").unlink()
    (toy_folder / "taxonomy.tsv").symlink_to(tmp_path / "nowhere.tsv")
    with pytest.raises(ValueError, match=f"^{re.escape(str(toy_folder))}/taxonomy.tsv: "):
        datamodule(toy_folder, tmp_path).taxonomy  # noqa: B018


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        (["A", " B"], "level 2, ' B': expected a name without blanks around it; remove them"),
        (["A", "", "C"], "level 2, '': expected a name; fill it in, or let the path end above it"),
        (["ROOT", "A"], "level 1, 'ROOT': ROOT stands for what is above all paths; begin the path below it, or rename"),
        (["A\tB"], r"level 1, 'A\tB': expected a name on one line without tabs and NUL characters; replace them by"),
        (["\ud800"], r"level 1, '\ud800': half of a surrogate pair is not a character; correct it"),
    ],
    ids=["blanks", "hole", "root", "tab", "surrogate"],
)
def test_labels_that_name_no_node_are_refused(path: list[str], problem: str, tmp_path: Path) -> None:
    write_split(tmp_path, "train", [["A"]], [["B"], path])
    message = f"{tmp_path / 'train.jsonl'}:2: labels: {problem}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        read_taxonomy(tmp_path)


def test_no_label_at_all_is_refused(tmp_path: Path) -> None:
    write_split(tmp_path, "train", [], [])
    message = f"{tmp_path}: no taxonomy.tsv there, and no document has a label to take the taxonomy from; add either"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        read_taxonomy(tmp_path)
