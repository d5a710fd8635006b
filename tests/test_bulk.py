"""Whole files of texts: every form, bad rows, and what was cut off."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TOY_DOCUMENTS, saved_ptmt

from ptmt_lightning import bulk
from ptmt_lightning.bulk import Counts, predict_file, read_rows
from ptmt_lightning.inference import Classifier
from ptmt_lightning.taxonomy import Taxonomy

TEXTS = [document["text"] for document in TOY_DOCUMENTS]
COMMAND = [str(Path(sys.executable).with_name("ptmt")), "predict"]


@pytest.fixture
def model(tmp_path: Path, toy_taxonomy: Taxonomy) -> Path:
    saved_ptmt(tmp_path, toy_taxonomy)
    return tmp_path / "model"


@pytest.fixture
def classifier(model: Path) -> Classifier:
    return Classifier.from_pretrained(model)


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(folder: Path, name: str) -> Path:
    """The toy texts in the form that the name says."""
    path = folder / name
    table = pd.DataFrame({"id": [f"d{i}" for i in range(len(TEXTS))], "more": "x", "text": TEXTS})
    match name.removesuffix(".gz").split(".")[1]:
        case "parquet":
            table.to_parquet(path)
        case "csv":
            table.to_csv(path, index=False)
        case "jsonl":
            table.to_json(path, orient="records", lines=True)
        case "txt":
            content = "".join(f"{text}\n" for text in TEXTS).encode()
            path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


@pytest.mark.parametrize(
    "name", ["in.txt", "in.txt.gz", "in.csv", "in.csv.gz", "in.jsonl", "in.jsonl.gz", "in.parquet"]
)
def test_every_form_of_input_gives_the_same_predictions(tmp_path: Path, classifier: Classifier, name: str) -> None:
    source, target = write(tmp_path, name), tmp_path / "out.jsonl"
    assert predict_file(classifier, str(source), str(target), settings={}) == Counts(len(TEXTS), 0)
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
    predict_file(classifier, str(source), str(tmp_path / "out.jsonl"), settings={})
    expected = records(tmp_path / "out.jsonl")
    predict_file(classifier, str(source), str(tmp_path / name), settings={})
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


def test_bad_rows_are_kept_apart_with_their_number(tmp_path: Path, classifier: Classifier) -> None:
    source = tmp_path / "in.jsonl"
    lines = [
        b'{"text": "m n"}', b"{", b'{"text": 5}', b'{"txt": "m"}', b'{"text": "  "}', b'["text"]', b'{"text": "\xff"}',
        b'{"text": "o p", "id": 7}',
    ]  # fmt: skip
    source.write_bytes(b"\n".join(lines) + b"\n")
    assert predict_file(classifier, str(source), str(tmp_path / "out.jsonl"), settings={}) == Counts(2, 6)
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


def test_bad_rows_of_a_csv(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text('id,text\n1,"two\nlines, and a comma"\n2\n3,"a"b\n4,last\n')
    rows = list(read_rows(str(source)))
    assert [(row.number, row.error is None) for row in rows] == [(1, True), (2, False), (3, False), (4, True)]
    assert rows[0].text == "two\nlines, and a comma"
    assert rows[1].error == "expected 2 fields as in the header, got 1"
    assert "invalid CSV on line 5" in str(rows[2].error)


def test_a_missing_value_of_parquet_is_kept_apart(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["m", None]}), tmp_path / "in.parquet")
    rows = list(read_rows(str(tmp_path / "in.parquet"), text_column="body"))
    assert [row.error for row in rows] == [None, "the text is NoneType None, expected a string"]


def test_wrong_inputs_and_outputs_are_refused(tmp_path: Path, classifier: Classifier) -> None:
    def refused(source: Path, target: Path, message: str, **further: Any) -> None:
        with pytest.raises(ValueError, match=re.escape(message)):
            predict_file(classifier, str(source), str(target), settings={}, **further)

    good = write(tmp_path, "in.csv")
    refused(good, tmp_path / "a.jsonl", "no column 'body'; it has 'id', 'more', 'text'", text_column="body")
    refused(tmp_path / "in.xml", tmp_path / "b.jsonl", "unknown input format 'xml'; expected txt, csv, jsonl, parquet")
    refused(good, tmp_path / "out.xml", "unknown output format 'xml'; expected jsonl, csv, parquet")
    (tmp_path / "c.jsonl").touch()
    refused(good, tmp_path / "c.jsonl", "c.jsonl is there already; give another output, or --overwrite")
    predict_file(classifier, str(good), str(tmp_path / "c.jsonl"), settings={}, overwrite=True)
    assert len(records(tmp_path / "c.jsonl")) == len(TEXTS)
    cut = tmp_path / "cut.txt.gz"
    cut.write_bytes(write(tmp_path, "in.txt.gz").read_bytes()[:-12])
    refused(cut, tmp_path / "d.jsonl", "cut.txt.gz: the file ends early or is damaged")


class StoppedError(Exception):
    pass


def test_what_was_cut_off_goes_on_and_nothing_is_lost_or_doubled(
    tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "_CHUNK", 7)
    draw = random.Random(0)
    lines = [draw.choice([*TEXTS, ""]) for _ in range(200)]
    source = tmp_path / "in.txt"
    source.write_text("".join(line + "\n" for line in lines))
    predict_file(classifier, str(source), str(tmp_path / "whole.jsonl"), settings={})
    real = bulk.write_json
    starts = 0

    def failing(path: Path, content: dict[str, Any]) -> None:
        """Fails now and then, with rows written that the state doesn't know of."""
        if draw.random() < 0.2:
            raise StoppedError
        real(path, content)

    target = tmp_path / "out.jsonl"
    monkeypatch.setattr(bulk, "write_json", failing)
    while not target.exists():
        starts += 1
        try:
            predict_file(classifier, str(source), str(target), settings={})
        except StoppedError:
            continue
    assert starts > 3
    assert target.read_text() == (tmp_path / "whole.jsonl").read_text()
    assert (tmp_path / "out.jsonl.rejected.jsonl").read_text() == (tmp_path / "whole.jsonl.rejected.jsonl").read_text()
    assert not (tmp_path / "out.jsonl.part").exists()


def test_what_was_begun_with_other_settings_is_not_gone_on_with(
    tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = write(tmp_path, "in.txt"), tmp_path / "out.jsonl"

    def interrupted(*arguments: Any) -> Iterator[Any]:
        raise StoppedError
        yield

    with monkeypatch.context() as patch:
        patch.setattr(bulk, "_chunks", interrupted)
        with pytest.raises(StoppedError):
            predict_file(classifier, str(source), str(target), settings={"model": "a"})
    with pytest.raises(ValueError, match=r"out\.jsonl\.part was begun with another model; delete it to start anew"):
        predict_file(classifier, str(source), str(target), settings={"model": "b"})
    source.write_text("another\n")
    with pytest.raises(ValueError, match="was begun with another source"):
        predict_file(classifier, str(source), str(target), settings={"model": "a"})


# ---- the command ----


def test_command_reads_standard_input_and_writes_standard_output(model: Path, classifier: Classifier) -> None:
    done = subprocess.run(
        [*COMMAND, str(model), "-", "--threshold", "0.3"], input="\n".join([*TEXTS, ""]), capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    expected = classifier.predict(TEXTS, threshold=0.3)
    assert [[tuple(path["path"]) for path in record["predicted"]] for record in found] == [
        [path.labels for path in prediction] for prediction in expected
    ]
    assert f"{len(TEXTS)} predicted, 0 left out" in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(model: Path) -> None:
    command = f"{' '.join(COMMAND)} {model} - | head -n 1"
    done = subprocess.run(command, shell=True, input="m n\n" * 20_000, capture_output=True, text=True, check=False)
    assert len(done.stdout.splitlines()) == 1
    assert "Broken pipe" not in done.stderr
    assert "Traceback" not in done.stderr


def test_command_names_what_is_wrong(model: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, str(tmp_path), str(write(tmp_path, "in.txt"))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"error: '{tmp_path}' has no ptmt.json; did you mean {model}?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_killed_command_goes_on(model: Path, tmp_path: Path, classifier: Classifier) -> None:
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("".join(f"{TEXTS[i % len(TEXTS)]} {i}\n" for i in range(40_000)))
    command = [*COMMAND, str(model), str(source), "-o", str(target)]
    state = tmp_path / "out.jsonl.part/state.json"
    done_before = 0
    for _ in range(2):
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        while not state.exists() or json.loads(state.read_text())["predicted"] <= done_before:
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        done_before = json.loads(state.read_text())["predicted"]
        assert 0 < done_before < 40_000
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"going on after row {done_before}" in done.stderr
    assert [record["row"] for record in records(target)] == list(range(1, 40_001))
