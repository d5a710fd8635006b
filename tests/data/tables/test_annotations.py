"""Exports of Label Studio (JSON, 1.x) and Argilla (records of 2.x), written by hand after their documentation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from converted import WHOLE, convert_table, documents, written

PATHS = [["Hardware", "Disk"], ["Software"]]


def task(text: str, *annotations: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": 1, "data": {"text": text, "source": "mail"}, "annotations": list(annotations), "predictions": [],
        "created_at": "2024-03-09T21:52:49.513742Z", "project": 83,
    }  # fmt: skip


def annotation(*paths: list[str], question: str = "topic", **more: Any) -> dict[str, Any]:
    value = {"taxonomy": list(paths)}
    result = {"id": "Dx_aB91ISN", "from_name": question, "to_name": "text", "type": "taxonomy", "value": value}
    return {
        "id": 1001, "result": [result] if paths else [], "was_cancelled": False, "ground_truth": False,
        "updated_at": "2024-03-09T22:16:08Z", "completed_by": 10, **more,
    }  # fmt: skip


def converted(tmp_path: Path, content: list[Any], **options: Any) -> tuple[list[Any], list[str]]:
    path = written(tmp_path, "export.json", json.dumps(content))
    said = convert_table(path, tmp_path / "to", **WHOLE | options)
    return documents(tmp_path / "to")["train"], [line.removeprefix(f"{path}: ") for line in said[2:]]


def test_tasks_of_label_studio(tmp_path: Path) -> None:
    tasks = [
        task("a", annotation(*PATHS)),
        task("b"),
        task("c", annotation(["Software"], was_cancelled=True)),
        task("d", annotation()),
        task("e", annotation(["Hardware"]), annotation(["Software"], updated_at="2024-03-10T00:00:00Z")),
        task("f", annotation(["Hardware"], ground_truth=True), annotation(["Software"], updated_at="2025-01-01")),
    ]
    found, said = converted(tmp_path, tasks)
    assert found == [("a", PATHS), ("d", []), ("e", [["Software"]]), ("f", [["Hardware"]])]
    assert said == [
        "1 document(s) without a label, kept as such",
        "2 row(s) without an annotation",
        "2 row(s) on which annotators disagree: its first answer is taken; of Label Studio the ground truth, or the "
        "newest",
    ]


def test_choices_of_label_studio_are_labels_of_one_level_or_paths(tmp_path: Path) -> None:
    one = annotation(["x"])
    one["result"] = [
        {"from_name": "c", "to_name": "text", "type": "choices", "value": {"choices": ["A", ["B", "C"]]}},
        {"from_name": "box", "to_name": "text", "type": "labels", "value": {"start": 0, "labels": ["Z"]}},
    ]
    assert converted(tmp_path, [task("a", one)], format="label-studio")[0] == [("a", [["A"], ["B", "C"]])]


def record(text: str, **responses: list[Any]) -> dict[str, Any]:
    return {
        "id": "1", "fields": {"text": text}, "metadata": {}, "suggestions": {"topic": {"value": ["X"], "score": 0.9}},
        "responses": {
            question: [{"value": value, "user_id": "6f7c"} for value in values]
            for question, values in responses.items()
        },
        "vectors": {}, "_server_id": "3ad0",
    }  # fmt: skip


def test_records_of_argilla(tmp_path: Path) -> None:
    records = [
        record("a", topic=[["Hardware > Disk", "Software"]]),
        record("b"),
        record("c", topic=["Software", "Hardware"]),
    ]
    found, said = converted(tmp_path, records)
    assert found == [("a", PATHS), ("c", [["Software"]])]
    assert said[0] == "1 row(s) without an annotation"
    assert said[1].startswith("1 row(s) on which annotators disagree")


@pytest.mark.parametrize("name", ["export.parquet", "export.jsonl"])
def test_flat_rows_of_argilla(tmp_path: Path, name: str) -> None:
    rows = pd.DataFrame({
        "id": ["1", "2", "3"], "status": ["completed"] * 3, "text": ["a", "b", "c"],
        "topic.responses": [[["Hardware > Disk", "Software"]], [["Hardware"], ["Software"]], None],
        "topic.responses.users": [["u"], ["u", "v"], None],
        "topic.responses.status": [["submitted"], ["discarded", "submitted"], None],
        "topic.suggestion": [["X"], None, None],
    })  # fmt: skip
    rows.to_parquet(tmp_path / name) if name.endswith("parquet") else rows.to_json(
        tmp_path / name, orient="records", lines=True
    )
    convert_table(tmp_path / name, tmp_path / "to", **WHOLE)
    assert documents(tmp_path / "to")["train"] == [("a", PATHS), ("b", [["Software"]])]


def test_of_several_questions_one_is_chosen(tmp_path: Path) -> None:
    records = [record("a", topic=["A"], mood=["B"]), record("b", mood=["C"])]
    path = written(tmp_path, "export.json", json.dumps(records))
    with pytest.raises(
        ValueError,
        match=r"^.*export\.json, element 1: questions 'mood', 'topic'; expected one of label paths; set "
        r"dataset\.paths to it$",
    ):
        convert_table(path, tmp_path / "to")
    assert converted(tmp_path, records, paths="topic")[0] == [("a", [["A"]])]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([task("a")], r"no annotated document; expected an export of label-studio; annotate some, or set "
         r"dataset\.format"),
        ([task("a", {"result": 7})], r"export\.json, element 1: not a record of label-studio \(TypeError: .*\); "
         r"expected"),
        ([task("a", annotation(["A", ""]))], r"export\.json, element 1: column 'labels': \['A', ''\]: an empty label"),
        ([{"data": {"html": "x"}, "annotations": [annotation(["A"])]}], r"no column 'text'; it has 'html', 'labels' "
         r"in this "
         r"export of label-studio; set dataset\.text"),
    ],
)  # fmt: skip
def test_a_bad_export(tmp_path: Path, content: list[Any], message: str) -> None:
    path = written(tmp_path, "export.json", json.dumps(content))
    with pytest.raises(ValueError, match=message):
        convert_table(path, tmp_path / "to", **WHOLE)
