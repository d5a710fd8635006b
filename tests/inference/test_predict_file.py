"""Whole files of texts: every form, bad rows, and what was cut off."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TOY_DOCUMENTS, saved_ptmt

from ptmt_lightning.inference import Classifier
from ptmt_lightning.inference import predict_file as predicting
from ptmt_lightning.inference.predict_file import Counts, predict_file
from ptmt_lightning.inference.text_files import Row, read_rows
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


def test_bad_rows_of_a_csv(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text(
        'id,text\r\n1,"two\nlines, and a comma"\n2\n\n3,"a"b\n4,last\n5,"open\n6,a\n7,"b"\n8,c\n9,"open\n10,d'
    )
    rows = list(read_rows(str(source)))
    assert [row.number for row in rows] == list(range(1, 11))
    assert [row.number for row in rows if row.error] == [2, 3, 5, 9]
    assert rows[0].text == "two\nlines, and a comma"
    assert rows[1].error == "expected 2 fields as in the header, got 1"
    assert rows[2] == Row(3, None, '3,"a"b', "invalid CSV: ',' expected after '\"'")
    assert [row.text for row in rows[3:]] == ["last", '5,"open', "a", "b", "c", '9,"open', "d"]


def test_a_quote_that_is_never_closed_takes_one_row_with_it_in_constant_memory(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    with source.open("w") as file:
        file.write('text\nfirst\n"open\n')
        file.writelines(f"row {i}\n" for i in range(3000))
    rows = list(read_rows(str(source)))
    assert [row.number for row in rows if row.error] == [2]
    assert "a quote is not closed within 1000 lines" in str(rows[1].error)
    assert [row.text for row in rows[2:]] == [f"row {i}" for i in range(3000)]


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


def test_a_parquet_string_that_is_not_utf_8_is_kept_apart(tmp_path: Path) -> None:
    texts = pa.array([b"m", b"\xff", b"n"]).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")
    rows = list(read_rows(str(tmp_path / "in.parquet")))
    assert [row.error for row in rows] == [None, "the text is not valid UTF-8", None]


def test_a_missing_value_of_parquet_is_kept_apart(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["m", None]}), tmp_path / "in.parquet")
    rows = list(read_rows(str(tmp_path / "in.parquet"), text_column="body"))
    assert [row.error for row in rows] == [None, "the text is NoneType None, expected a string"]


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
    refused(cut, tmp_path / "e.jsonl", "cut.txt.gz: the file ends early or is damaged")
    for header, message in (
        ('"a"b,text\n', "the header is invalid CSV"),
        ("text,text\n", "more than one column 'text'"),
    ):
        (tmp_path / "bad.csv").write_text(header)
        refused(tmp_path / "bad.csv", tmp_path / "f.jsonl", message)


class StoppedError(Exception):
    pass


def test_what_was_cut_off_goes_on_and_nothing_is_lost_or_doubled(
    tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predicting, "_CHUNK", 7)
    draw = random.Random(0)
    lines = [draw.choice([*TEXTS, ""]) for _ in range(200)]
    source = tmp_path / "in.txt"
    source.write_text("".join(line + "\n" for line in lines))
    predict_file(classifier, str(source), str(tmp_path / "whole.jsonl"))
    real = predicting.write_json
    starts = 0

    def failing(path: Path, content: dict[str, Any]) -> None:
        """Fails now and then, with rows written that the state doesn't know of."""
        if draw.random() < 0.2:
            raise StoppedError
        real(path, content)

    target = tmp_path / "out.jsonl"
    monkeypatch.setattr(predicting, "write_json", failing)
    while not target.exists():
        starts += 1
        try:
            predict_file(classifier, str(source), str(target))
        except StoppedError:
            continue
    assert starts > 3
    assert target.read_text() == (tmp_path / "whole.jsonl").read_text()
    assert (tmp_path / "out.jsonl.rejected.jsonl").read_text() == (tmp_path / "whole.jsonl.rejected.jsonl").read_text()
    assert not (tmp_path / "out.jsonl.part").exists()


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv.gz", "out.parquet"])
def test_it_can_be_cut_off_between_any_two_steps_of_the_end(
    tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    source, target = tmp_path / "in.txt", tmp_path / name
    source.write_text("m n\n\no p\n")
    predict_file(classifier, str(source), str(tmp_path / f"whole{name}"))
    steps_left = 0

    def counted(real: Any) -> Any:
        def step(*arguments: Any, **further: Any) -> Any:
            nonlocal steps_left
            steps_left -= 1
            if steps_left < 0:
                raise StoppedError
            return real(*arguments, **further)

        return step

    for owner, method in (
        (Path, "replace"),
        (Path, "unlink"),
        (predicting.shutil, "rmtree"),
        (predicting, "write_json"),
    ):
        monkeypatch.setattr(owner, method, counted(getattr(owner, method)))
    for allowed in range(20):
        steps_left = allowed
        with contextlib.suppress(StoppedError):
            predict_file(classifier, str(source), str(target))
            break
    assert allowed > 4
    monkeypatch.undo()
    whole = tmp_path / f"whole{name}"
    if name == "out.parquet":
        assert pq.read_table(target).equals(pq.read_table(whole))
    else:
        unzip = gzip.decompress if name.endswith(".gz") else bytes
        assert unzip(target.read_bytes()) == unzip(whole.read_bytes())
    assert len(records(tmp_path / f"{name}.rejected.jsonl")) == 1


def test_what_was_begun_with_other_settings_is_not_gone_on_with(
    tmp_path: Path, classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predicting, "_CHUNK", 2)
    source, target = write(tmp_path, "in.txt"), tmp_path / "out.jsonl"
    real = predicting._finish

    def interrupted(*arguments: Any) -> None:
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(predicting, "_finish", interrupted)
        with pytest.raises(StoppedError):
            predict_file(classifier, str(source), str(target), top_k=1)
    for further, names in (
        ({"top_k": 2}, "top_k"), ({"top_k": 1, "prune": False}, "prune"), ({"threshold": 0.2}, "threshold, top_k"),
        ({"top_k": 1, "input_format": "jsonl"}, "input_format"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"out\.jsonl\.part was begun with another {names}; delete it to start"):
            predict_file(classifier, str(source), str(target), **further)
    model = classifier.folder.path / "ptmt.json"
    os.utime(model, (1, 1))
    with pytest.raises(ValueError, match="was begun with another model"):
        predict_file(classifier, str(source), str(target), top_k=1)
    assert real is predicting._finish


def test_two_at_once_are_refused(tmp_path: Path, classifier: Classifier) -> None:
    source, target = write(tmp_path, "in.txt"), tmp_path / "out.jsonl"
    with (
        predicting._locked(tmp_path / "out.jsonl.part", target),
        pytest.raises(ValueError, match=r"another process is writing .*out\.jsonl"),
    ):
        predict_file(classifier, str(source), str(target))


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
    assert f"going on after {done_before} rows" in done.stderr
    assert [record["row"] for record in records(target)] == list(range(1, 40_001))
