"""``ptmt predict``: standard input and output, errors in one line, and going on after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import saved_ptmt
from prediction_files import TEXTS, records, write
from warm import warm_ptmt

from ptmt_lightning.inference import Classifier
from ptmt_lightning.taxonomy import Taxonomy


def predict() -> list[str]:
    return [*warm_ptmt(), "predict"]


@pytest.fixture
def model(tmp_path: Path, toy_taxonomy: Taxonomy) -> Path:
    saved_ptmt(tmp_path, toy_taxonomy)
    return tmp_path / "model"


@pytest.fixture
def classifier(model: Path) -> Classifier:
    return Classifier.from_pretrained(model)


def test_command_reads_standard_input_and_writes_standard_output(model: Path, classifier: Classifier) -> None:
    done = subprocess.run(
        [*predict(), str(model), "-", "--threshold", "0.3"], input="\n".join([*TEXTS, ""]), capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    expected = classifier.predict(TEXTS, threshold=0.3)
    assert [[tuple(path["path"]) for path in record["predicted"]] for record in found] == [
        [path.labels for path in prediction] for prediction in expected
    ]
    assert f"{len(TEXTS)} predicted, 0 left out" in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(model: Path) -> None:
    command = f"{' '.join(predict())} {model} - | head -n 1"
    done = subprocess.run(command, shell=True, input="m n\n" * 20_000, capture_output=True, text=True, check=False)
    assert len(done.stdout.splitlines()) == 1
    assert "Broken pipe" not in done.stderr
    assert "Traceback" not in done.stderr


def test_command_names_what_is_wrong(model: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [*predict(), str(tmp_path), str(write(tmp_path, "in.txt"))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"error: '{tmp_path}' has no ptmt.json, " in done.stderr
    assert f"; did you mean {model}?" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_killed_command_goes_on(model: Path, tmp_path: Path, classifier: Classifier) -> None:
    source, target = tmp_path / "in.txt", tmp_path / "out.jsonl"
    source.write_text("".join(f"{TEXTS[i % len(TEXTS)]} {i}\n" for i in range(40_000)))
    command = [*predict(), str(model), str(source), "-o", str(target)]
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
