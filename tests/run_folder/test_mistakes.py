"""The table of documents that went wrong."""

from __future__ import annotations

import wandb

from ptmt_lightning.run_folder.mistakes import wrong_predictions
from ptmt_lightning.run_folder.prediction import DocumentPrediction
from ptmt_lightning.taxonomy import Taxonomy


def test_wrong_predictions_begin_with_the_surest_of_the_worst(toy_taxonomy: Taxonomy) -> None:
    node = toy_taxonomy.names.index
    true = [node("A"), node("AA")]
    predictions = [
        DocumentPrediction(0, true, [0.9, 0.8], true, [0.9, 0.8]),  # right
        DocumentPrediction(1, [node("A")], [0.9], true, [0.9, 0.4]),  # half right
        DocumentPrediction(2, [node("B")], [0.6], true, [0.1, 0.1]),
        DocumentPrediction(3, [node("B"), node("C")], [0.7, 0.95], true, [0.2, 0.1]),
        DocumentPrediction(4, [], [], true, [0.3, 0.25]),
    ]
    ids, texts = [f"test:{row + 1}" for row in range(5)], (f"text {row} {'x' * 600}" for row in range(5))
    table = wrong_predictions(predictions, ids, texts, toy_taxonomy, limit=3)
    assert list(table["id"]) == ["test:4", "test:3", "test:5"]
    assert [text[:6] for text in table["text"]] == ["text 3", "text 2", "text 4"]
    assert set(table["text"].str.len()) == {500}
    assert table.drop(columns=["id", "text"]).to_dict("records")[0] == {
        "true": "A > AA", "true_probability": "0.1000", "predicted": "B\nC", "probability": "0.7000\n0.9500", "f1": 0.0,
    }  # fmt: skip


def test_without_a_mistake_the_table_is_empty(toy_taxonomy: Taxonomy) -> None:
    table = wrong_predictions([DocumentPrediction(0, [0], [0.9], [0], [0.9])], ["test:1"], ["text"], toy_taxonomy)
    assert wandb.Table(dataframe=table).data == []
