"""Outputs of a run that fail, or before which it is killed: model, predictions and result are there."""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import TOY_EDGES
from helpers import FAST, run

from ptmt_lightning.inference import Classifier
from ptmt_lightning.run_folder.figures import PICTURES
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.training import artifacts

TOLD = {"per_label.csv", "reliability.csv", "mistakes.csv", "label_embeddings.csv", "figures"}


def fail(error: BaseException, *_: object) -> Any:
    raise error


def assert_opens(model: Path) -> None:
    assert Classifier.from_pretrained(model).probabilities(["m n o"]).shape == (1, len(TOY_EDGES))


def assert_has_its_result(folder: Path, result: dict[str, Any]) -> None:
    assert RunFolder(folder).is_finished
    assert json.loads((folder / "result.json").read_text()) == result
    assert len((folder / "predictions.jsonl").read_text().splitlines()) == result["num_documents"]["test"]
    assert_opens(folder / "model")


def test_outputs_that_fail_are_warnings_and_the_others_are_written(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(artifacts.OUTPUTS, "toy.txt", partial(fail, ValueError("toy=1: expected 2; set it")))
    monkeypatch.setitem(artifacts.OUTPUTS, "mistakes.csv", partial(fail, MemoryError()))
    monkeypatch.setitem(PICTURES, "label_f1", (partial(fail, ZeroDivisionError("by 0")), PICTURES["label_f1"][1]))
    monkeypatch.setattr(artifacts.label_embeddings, "summary", partial(fail, RuntimeError("V x V")))
    with caplog.at_level(logging.WARNING, logger=artifacts.__name__):
        result, _ = run(
            toy_folder, tmp_path, tmp_path / "run", optimizer=FAST, trainer={"max_epochs": 1}, keep_checkpoints=False
        )
    assert [record.getMessage() for record in caplog.records if record.name == artifacts.__name__] == [
        "label_embeddings of result.json is missing: RuntimeError: V x V",
        "mistakes.csv is missing: out of memory; lower the batch size (dataset.batch_size, --batch-size), or use a "
        "smaller model",
        "toy.txt is missing: toy=1: expected 2; set it",
        "figures/label_f1.png is missing: ZeroDivisionError: by 0",
    ]
    assert_has_its_result(tmp_path / "run", result)
    assert result["label_embeddings"] is None
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.yaml", "result.json", "predictions.jsonl", "model", *TOLD} - {"mistakes.csv"}
    assert {path.name for path in (tmp_path / "run/figures").iterdir()} == {"label_map.png", "reliability.png"}
    assert (tmp_path / "run/model/README.md").exists()


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def test_a_run_that_is_killed_in_its_report_has_its_result_and_can_be_resumed(
    toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"optimizer": FAST, "trainer": {"max_epochs": 1}, "keep_checkpoints": False}
    with monkeypatch.context() as context:
        context.setitem(artifacts.OUTPUTS, "per_label.csv, reliability.csv", partial(fail, Killed()))
        with pytest.raises(Killed):
            run(toy_folder, tmp_path, tmp_path / "run", **settings)
    before = json.loads((tmp_path / "run/result.json").read_text())
    assert_has_its_result(tmp_path / "run", before)
    assert not TOLD & {path.name for path in (tmp_path / "run").iterdir()}
    assert RunFolder(tmp_path / "run").is_resumable
    after, _ = run(toy_folder, tmp_path, tmp_path / "run", **settings, resume=True)
    assert (after["test"], after["val"], after["steps"]) == (before["test"], before["val"], before["steps"])
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.yaml", "result.json", "predictions.jsonl", "model", *TOLD}


def test_the_model_is_there_before_the_test(toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptmt_lightning.training.train._test", partial(fail, Killed()))
    with pytest.raises(Killed):
        run(toy_folder, tmp_path, tmp_path / "run", optimizer=FAST, trainer={"max_epochs": 1})
    assert_opens(tmp_path / "run/model")
    folder = RunFolder(tmp_path / "run")
    assert not folder.is_finished
    assert folder.is_resumable
    with pytest.raises(ValueError, match="holds a run that was cut off"):
        folder.check_free()


def test_checkpoints_go_all_at_once(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.remove_checkpoints()  # there are none
    folder.checkpoints.mkdir()
    folder.last_checkpoint.write_text("x")
    folder.remove_checkpoints()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".checkpoints.0123").mkdir()  # of a process that was killed meanwhile
    folder.remove_leftovers()
    assert list(tmp_path.iterdir()) == []
