"""What a run says at its start about its data and settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import TOY_DOCUMENTS, TOY_EDGES, write_folder
from helpers import make

from ptmt_lightning.losses import CrossEntropy
from ptmt_lightning.optim import LinearAdamW
from ptmt_lightning.training.advice import advice

ONE_PATH = [document for document in TOY_DOCUMENTS if len(document["labels"]) == 1]


def said(tmp_path: Path, documents: list[dict[str, Any]], edges: list[tuple[str, str]], **settings: Any) -> list[str]:
    folder = write_folder(tmp_path / "data", edges, train=documents, val=documents)
    return advice(*make(folder, tmp_path, **settings))


def test_nothing_surprising_is_one_line(tmp_path: Path) -> None:
    [line] = said(tmp_path, TOY_DOCUMENTS * 5, TOY_EDGES)
    assert line == "documents have several paths or none, up to 2 labels on a level"


def test_one_path_a_document_has_a_loss_of_its_own(tmp_path: Path) -> None:
    given = "each training document has one path, and each is given one (model.decoding=best_path)"
    better = "; loss=cross_entropy is made for that"
    assert said(tmp_path, ONE_PATH * 5, TOY_EDGES)[0] == given + better
    assert said(tmp_path, ONE_PATH * 5, TOY_EDGES, label_loss=CrossEntropy())[0] == given
    lines = said(tmp_path, ONE_PATH * 5, TOY_EDGES, decoding="threshold")
    assert lines[0] == "each training document has one path; model.decoding=best_path gives each one" + better


def test_a_rate_that_was_chosen_is_told_with_its_reason(tmp_path: Path) -> None:
    lines = said(tmp_path, TOY_DOCUMENTS, TOY_EDGES, optimizer=LinearAdamW())
    assert lines[0].startswith("learning rate 0.001, chosen for an untrained backbone of 2 layers and hidden size ")
    assert lines[0].endswith("1 times that for new parameters; optimizer.learning_rate sets another")


def test_rare_labels_are_counted(tmp_path: Path) -> None:
    lines = said(tmp_path, ONE_PATH * 4, TOY_EDGES)
    assert lines[1] == "10 of 11 labels have fewer than 5 training documents, 4 of them none: 'A', 'C', 'AA', ..."
    assert len(said(tmp_path, TOY_DOCUMENTS * 5, TOY_EDGES)) == 1


def test_labels_with_several_parents_are_named(tmp_path: Path) -> None:
    edges = [*TOY_EDGES, ("A", "other"), ("B", "other")]
    lines = said(tmp_path, [*TOY_DOCUMENTS * 5, *[{"text": "m", "labels": [["A", "other"]]}] * 5], edges)
    assert lines[-1].startswith("labels with several parents: 'other'; each is one label, wherever it stands")


@pytest.mark.parametrize(("length", "is_cut"), [(40, True), (5, False)])
def test_texts_that_are_cut_are_counted(tmp_path: Path, length: int, is_cut: bool) -> None:
    documents = [*TOY_DOCUMENTS * 5, {"text": "m " * length, "labels": [["A"]]}]
    lines = said(tmp_path, documents, TOY_EDGES)
    assert any("1 of 31 training texts are longer than" in line for line in lines) == is_cut


def test_paths_end_at_leaves_or_above(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "data", TOY_EDGES, train=ONE_PATH, val=ONE_PATH[:1])
    module, model = make(folder, tmp_path)
    assert model.rule.decoding == "best_path"
    assert not module.ends_at_leaves("train")  # one document's path is C, which has a child
    assert module.ends_at_leaves("val")
    assert not model.rule.to_leaf


def test_all_paths_end_at_leaves_where_there_is_one_level(tmp_path: Path) -> None:
    documents = [{"text": "m n", "labels": [["A"]]}, {"text": "x y", "labels": [["B"]]}]
    folder = write_folder(tmp_path / "data", [("ROOT", "A"), ("ROOT", "B")], train=documents, val=documents)
    module, model = make(folder, tmp_path)
    assert module.ends_at_leaves("train")
    assert (model.rule.decoding, model.rule.to_leaf) == ("best_path", True)


@pytest.mark.parametrize(
    ("documents", "settings", "decoding"),
    [
        (ONE_PATH, {}, "best_path"),
        (ONE_PATH, {"threshold": 0.4}, "threshold"),
        (ONE_PATH, {"tune_threshold": "level"}, "threshold"),
        (ONE_PATH, {"decoding": "threshold"}, "threshold"),
        (ONE_PATH, {"decoding": "top_k", "top_k": 1}, "top_k"),
        (TOY_DOCUMENTS, {}, "threshold"),
        ([*ONE_PATH, {"text": "none", "labels": []}], {}, "threshold"),
    ],
)
def test_one_path_is_predicted_where_each_document_has_one(
    tmp_path: Path, documents: list[dict[str, Any]], settings: dict[str, Any], decoding: str
) -> None:
    folder = write_folder(tmp_path / "data", TOY_EDGES, train=documents, val=documents)
    assert make(folder, tmp_path, **settings)[1].rule.decoding == decoding
