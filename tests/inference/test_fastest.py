"""The fastest form of a model: what is measured, refused, left out and kept."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import saved_ptmt
from every_system import MORE, labels
from warm import warm_ptmt

from ptmt_lightning.cli import main
from ptmt_lightning.inference import Classifier
from ptmt_lightning.inference.fastest import Measured, table
from ptmt_lightning.inference.sample_texts import made_up, sample_of_file
from ptmt_lightning.taxonomy import Taxonomy


@pytest.mark.slow
def test_the_fastest_is_kept_with_what_was_measured(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    """Five exports, in a process of their own: NNCF changes PyTorch's operators wherever it is imported."""
    saved_ptmt(tmp_path, toy_taxonomy)
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in MORE if text))
    command = ["export", str(tmp_path / "model"), "-o", str(tmp_path / "new"), "--format", "fastest"]
    done = subprocess.run(
        [*warm_ptmt(), *command, "--texts", str(tmp_path / "texts.txt")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()
    settings = json.loads((tmp_path / "new/ptmt.json").read_text())
    rows = {row["form"]: row for row in settings["measured"]["forms"]}
    wanted = {"pytorch", "onnx", "onnx-int8", "openvino", "openvino-int8"}
    assert wanted == {name.removesuffix("-bfloat16") for name in rows}
    assert (rows["pytorch"]["over_pytorch"], rows["pytorch"]["same_labels"]) == (1, 1)
    taken = [line for line in shown if line.endswith("<- taken")]
    assert len(taken) == 1
    allowed = {name: row["over_pytorch"] for name, row in rows.items() if name != "pytorch" and not row["problem"]}
    assert taken[0].split()[0] == max(allowed, key=lambda name: allowed[name])
    assert not [path for path in (tmp_path / "new").iterdir() if path.is_dir()]
    found = Classifier.from_pretrained(tmp_path / "new").predict(MORE)
    assert len(labels(found)) == len(MORE)


@pytest.mark.slow
def test_forms_that_cannot_be_made_or_change_labels_are_left_out(
    tmp_path: Path, toy_taxonomy: Taxonomy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without OpenVINO, and where no change of labels is allowed: full precision is left."""
    saved_ptmt(tmp_path, toy_taxonomy)
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr("ptmt_lightning.inference.fastest.SAME_LABELS", 1.1)
    command = ["export", str(tmp_path / "model"), "-o", str(tmp_path / "new"), "--format", "fastest"]
    with pytest.raises(
        SystemExit,
        match=r"^error: .*/model: no form can be taken: onnx refused: less than 110% same labels; "
        r"onnx-int8 refused: .*; openvino left out: .*install it with pip install 'ptmt_lightning\[openvino\]'; "
        r"openvino-int8 left out: ",
    ):
        main(command)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    with pytest.raises(SystemExit, match=r"^error: --int8 with --format fastest: it tries 8 bits anyway; leave --int8"):
        main([*command, "--int8"])


def test_the_table_says_what_was_taken_and_why_others_were_not() -> None:
    problem = "refused: less than 95% same labels"
    rows = [
        Measured("pytorch", 50.0, 1.0, 20.0, 25.0, 1.0, 0.0, 0.0),
        Measured("onnx-int8", 100.0, 2.0, 9.5, 12.25, 0.985, 0.0312, 0.00041),
        Measured("openvino-int8", 150.0, 3.0, 8.0, 9.0, 0.9, 0.2, 0.01, problem),
        Measured("openvino", problem="left out: no openvino"),
    ]
    assert table(rows, "onnx-int8").splitlines() == [
        "form                texts/s  x pytorch  p50 ms  p99 ms  same labels  largest, mean difference",
        "pytorch                50.0       1.00    20.0    25.0       100.0%  0.0000, 0.00000",
        "onnx-int8             100.0       2.00     9.5    12.2        98.5%  0.0312, 0.00041  <- taken",
        f"openvino-int8         150.0       3.00     8.0     9.0        90.0%  0.2000, 0.01000  {problem}",
        "openvino            left out: no openvino",
    ]


def test_texts_are_drawn_from_the_whole_file_and_each_time_alike(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.writelines(f'{{"text": "{number}"}}\n' for number in range(1000))
        file.write("no JSON\n")
    chosen = sample_of_file(str(path), 100)
    assert chosen == sample_of_file(str(path), 100)
    assert len(set(chosen)) == 100
    assert 400 < sum(map(int, chosen)) / 100 < 600
    assert sample_of_file(str(path), 2000) == [str(number) for number in range(1000)]
    path.write_bytes(gzip.compress(b"no JSON\n"))
    with pytest.raises(ValueError, match=r"texts\.jsonl\.gz: holds no text that can be read; expected some to measure"):
        sample_of_file(str(path), 100)


def test_made_up_texts_are_of_words_of_labels(toy_taxonomy: Taxonomy) -> None:
    texts = made_up(toy_taxonomy, 50, 7)
    assert texts == made_up(toy_taxonomy, 50, 7)
    assert {word for text in texts for word in text.split()} == set(toy_taxonomy.labels)
    assert {len(text.split()) for text in texts} == set(range(1, 8))


# What a Python notes down that opens connections, looks up addresses or asks for them; its forks do so, too.
WATCHED = """
import os, sys
def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"):
        with open(os.environ["NOTES"], "a") as file: file.write(event + "\\n")
sys.addaudithook(note)
from ptmt_lightning.cli import main
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_nothing_is_sent_or_said_by_the_exporters(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    """In a Python of its own: both packages send statistics from processes that they fork, unless told not to."""
    saved_ptmt(tmp_path, toy_taxonomy)
    (tmp_path / "home").mkdir()
    (tmp_path / "texts.txt").write_text("m n\no\n")
    away = ("CI", "TF_BUILD", "JENKINS_URL", "NNCF_CI")
    environment = {name: value for name, value in os.environ.items() if name not in away}
    done = subprocess.run(
        [
            sys.executable, "-c", WATCHED, "export", str(tmp_path / "model"), "-o", str(tmp_path / "new"),
            "--format", "openvino", "--int8", "--texts", str(tmp_path / "texts.txt"),
        ],
        env=environment | {"HOME": str(tmp_path / "home"), "NOTES": str(tmp_path / "notes")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{tmp_path}/new: opens with Classifier.from_pretrained, ptmt predict"]
    assert not (tmp_path / "notes").exists()
    assert not (tmp_path / "home/intel").exists()
