"""Predictions of a file that were cut off go on, with the same settings only."""

from __future__ import annotations

import contextlib
import gzip
import os
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import saved_ptmt
from prediction_files import TEXTS, records, write

from ptmt_lightning.inference import Classifier
from ptmt_lightning.inference import predict_file as predicting
from ptmt_lightning.inference.predict_file import predict_file
from ptmt_lightning.taxonomy import Taxonomy


class StoppedError(Exception):
    pass


@pytest.fixture
def classifier(tmp_path: Path, toy_taxonomy: Taxonomy) -> Classifier:
    saved_ptmt(tmp_path, toy_taxonomy)
    return Classifier.from_pretrained(tmp_path / "model")


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


def test_a_folder_of_somebody_else_in_the_place_of_unfinished_rows_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl.part").mkdir()
    (tmp_path / "out.jsonl.part/mine.txt").write_text("precious")
    with (
        pytest.raises(ValueError, match=r"mine\.txt is not of ptmt predict, which needs that place; give another"),
        predicting._locked(tmp_path / "out.jsonl.part", tmp_path / "out.jsonl"),
    ):
        pass
    assert (tmp_path / "out.jsonl.part/mine.txt").read_text() == "precious"


@pytest.mark.parametrize("content", ["[]", "{", '{"finished": true}', "null"])
def test_a_broken_state_names_its_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(ValueError, match=r"state\.json: .*; delete the folder to start anew$"):
        predicting._read_state(tmp_path)
