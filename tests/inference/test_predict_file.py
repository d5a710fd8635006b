"""Predictions of whole files: every form in and out, and rows or files that are refused."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import saved_ptmt
from prediction_files import TEXTS, records, write

from ptmt_lightning.inference import Classifier
from ptmt_lightning.inference.predict_file import Counts, predict_file
from ptmt_lightning.taxonomy import Taxonomy


@pytest.fixture
def classifier(tmp_path: Path, toy_taxonomy: Taxonomy) -> Classifier:
    saved_ptmt(tmp_path, toy_taxonomy)
    return Classifier.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize(
    "name", ["in.txt", "in.txt.gz", "in.csv", "in.csv.gz", "in.jsonl", "in.jsonl.gz", "in.parquet"]
)
def test_every_form_of_input_gives_the_same_predictions(tmp_path: Path, classifier: Classifier, name: str) -> None:
    source, target = write(tmp_path, name), tmp_path / "out.jsonl"
    assert predict_file(classifier, str(source), str(target)) == Counts(len(TEXTS), 0)
    found = records(target)
    assert [record["row"] for record in found] == list(range(1, len(TEXTS) + 1))
    assert [record.get("id") for record in found] == [None if ".txt" in name else f"d{i}" for i in range(len(TEXTS))]
    for record, prediction in zip(found, classifier.predict(TEXTS), strict=True):
        assert [tuple(path["path"]) for path in record["predicted"]] == [path.labels for path in prediction]
        assert [tuple(path["probabilities"]) for path in record["predicted"]] == [p.probabilities for p in prediction]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "model", "out.jsonl"])


@pytest.mark.parametrize("name", ["out.jsonl.gz", "out.csv", "out.csv.gz", "out.parquet"])
def test_every_form_of_output_holds_the_same(tmp_path: Path, classifier: Classifier, name: str) -> None:
    source = write(tmp_path, "in.jsonl")
    predict_file(classifier, str(source), str(tmp_path / "out.jsonl"))
    expected = records(tmp_path / "out.jsonl")
    predict_file(classifier, str(source), str(tmp_path / name))
    if name.endswith(".parquet"):
        assert pq.read_table(tmp_path / name).to_pylist() == expected
    elif ".csv" in name:
        table = pd.read_csv(tmp_path / name, keep_default_na=False)
        assert list(table["row"]) == [record["row"] for record in expected]
        assert list(table["labels"]) == [
            "; ".join(" > ".join(path["path"]) for path in record["predicted"]) for record in expected
        ]
    else:
        assert [json.loads(line) for line in gzip.decompress((tmp_path / name).read_bytes()).splitlines()] == expected


@pytest.mark.parametrize("blank", ["\n\n", " \r\n\t\n"])
def test_blank_lines_count_wherever_they_are(blank: str, tmp_path: Path, classifier: Classifier) -> None:
    (tmp_path / "in.jsonl").write_bytes(f'{blank}{{"text": "m"}}\n\n {{"text": "n"}}\n'.encode())
    predict_file(classifier, str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl"))
    assert [record["row"] for record in records(tmp_path / "out.jsonl")] == [3, 5]


def test_bad_rows_are_kept_apart_with_their_number(tmp_path: Path, classifier: Classifier) -> None:
    source = tmp_path / "in.jsonl"
    lines = [
        b'{"text": "m n"}', b"{", b'{"text": 5}', b'{"txt": "m"}', b'{"text": "  "}', b'["text"]', b'{"text": "\xff"}',
        b'{"text": "o p", "id": 7}',
    ]  # fmt: skip
    source.write_bytes(b"\n".join(lines) + b"\n")
    assert predict_file(classifier, str(source), str(tmp_path / "out.jsonl")) == Counts(2, 6)
    assert [(record["row"], record.get("id")) for record in records(tmp_path / "out.jsonl")] == [(1, None), (8, "7")]
    rejected = records(tmp_path / "out.jsonl.rejected.jsonl")
    assert [record["row"] for record in rejected] == [2, 3, 4, 5, 6, 7]
    for record, expected in zip(
        rejected,
        [
            "invalid JSON", "the text is int 5, expected a string", "expected an object with the key 'text'",
            "the text is empty", "expected an object with the key 'text'", "the text is not valid UTF-8",
        ],
        strict=True,
    ):  # fmt: skip
        assert record["error"].startswith(expected)
    assert rejected[0]["content"] == "{"


@pytest.mark.parametrize(
    ("name", "content", "good"),
    [
        ("in.jsonl", b'{\xff\n{"txt": "\xff"}\n{"text": "m", "id": "\\ud800"}\n', 1),
        ("in.csv", b"id,text\nM\xfcller,m n\n\xff\n", 1),
        ("in.txt", b"m\xff\nn\n", 1),
    ],
)
@pytest.mark.parametrize("target", ["out.jsonl", "out.parquet"])
def test_bytes_that_are_not_utf_8_stop_nothing(
    tmp_path: Path, classifier: Classifier, name: str, content: bytes, good: int, target: str
) -> None:
    (tmp_path / name).write_bytes(content)
    counts = predict_file(classifier, str(tmp_path / name), str(tmp_path / target))
    assert counts.predicted == good
    assert counts.rejected > 0 or name == "in.csv"
    assert len(records(tmp_path / f"{target}.rejected.jsonl")) == counts.rejected


def test_wrong_inputs_and_outputs_are_refused(tmp_path: Path, classifier: Classifier) -> None:
    def refused(source: Path, target: Path, message: str, **further: Any) -> None:
        with pytest.raises(ValueError, match=re.escape(message)):
            predict_file(classifier, str(source), str(target), **further)
        assert not target.with_name(f"{target.name}.part").exists()

    good = write(tmp_path, "in.csv")
    refused(good, tmp_path / "a.jsonl", "no column 'body'; it has 'id', 'more', 'text'", text_column="body")
    refused(tmp_path / "in.xml", tmp_path / "b.jsonl", "unknown input format 'xml'; expected txt, csv, jsonl, parquet")
    refused(tmp_path / "no.txt", tmp_path / "b.jsonl", "no.txt: no such file")
    refused(good, tmp_path / "out.xml", "unknown output format 'xml'; expected jsonl, csv, parquet")
    refused(good, tmp_path / "out.parquet.gz", "parquet is compressed in itself; leave out .gz")
    refused(good, tmp_path / "b.jsonl", "threshold=1.5: expected a number in [0, 1]", threshold=1.5)
    (tmp_path / "d.jsonl").mkdir()
    refused(good, tmp_path / "d.jsonl", "d.jsonl is a folder; give a file")
    (tmp_path / "c.jsonl").touch()
    refused(good, tmp_path / "c.jsonl", "c.jsonl is there already; give another output, or --overwrite")
    predict_file(classifier, str(good), str(tmp_path / "c.jsonl"), overwrite=True)
    assert len(records(tmp_path / "c.jsonl")) == len(TEXTS)
    cut = tmp_path / "cut.txt.gz"
    cut.write_bytes(write(tmp_path, "in.txt.gz").read_bytes()[:-12])
    refused(cut, tmp_path / "e.jsonl", "cut.txt.gz: damaged or truncated gzip after line")
    for header, message in (
        ('"a"b,text\n', "the header is invalid CSV"),
        ("text,text\n", "more than one column 'text'"),
    ):
        (tmp_path / "bad.csv").write_text(header)
        refused(tmp_path / "bad.csv", tmp_path / "f.jsonl", message)
