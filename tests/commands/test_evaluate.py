"""``ptmt evaluate``: a saved model's scores on labelled data are those that its run reported."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import TOY_EDGES, write_folder
from helpers import run

from ptmt_lightning.cli import main
from ptmt_lightning.inference import Classifier
from ptmt_lightning.inference.evaluate import documents_of, evaluate


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_scores_are_those_of_the_run(
    finished_run: Path, toy_folder: Path, tmp_path: Path, split: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run_dir, result = finished_run, json.loads((finished_run / "result.json").read_text())
    main(["evaluate", str(run_dir / "model"), str(toy_folder), "--split", split, "-o", str(tmp_path / "scores")])
    found = json.loads((tmp_path / "scores/evaluation.json").read_text())
    assert found["metrics"] == pytest.approx(result[split], abs=1e-6)
    assert found["thresholds"] == result["thresholds"]
    assert (found["split"], found["num_documents"]) == (split, result["num_documents"][split])
    assert "h_f1_macro" in capsys.readouterr().out
    if split == "test":
        assert (tmp_path / "scores/predictions.jsonl").read_text() == (run_dir / "predictions.jsonl").read_text()
        for name in ("per_label.csv", "reliability.csv"):
            pd.testing.assert_frame_equal(*(pd.read_csv(folder / name) for folder in (tmp_path / "scores", run_dir)))
        assert {path.name for path in (tmp_path / "scores").iterdir()} == {
            "evaluation.json", "predictions.jsonl", "per_label.csv", "reliability.csv", "figures",
        }  # fmt: skip


def test_one_file_without_a_taxonomy_will_do(
    finished_run: Path, toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, result = finished_run, json.loads((finished_run / "result.json").read_text())
    with gzip.open(tmp_path / "more.jsonl.gz", "wb") as file:
        file.write((toy_folder / "test.jsonl").read_bytes())
    monkeypatch.chdir(tmp_path)
    main(["evaluate", str(run_dir / "model"), "more.jsonl.gz"])
    found = json.loads((tmp_path / "evaluations/more/evaluation.json").read_text())
    assert found["metrics"] == pytest.approx(result["test"], abs=1e-6)


def test_averages_run_over_the_classes_that_the_run_took(toy_folder: Path, tmp_path: Path) -> None:
    result, _ = run(toy_folder, tmp_path, tmp_path / "run", metric_classes="all", trainer={"max_epochs": 2})
    classifier = Classifier.from_pretrained(tmp_path / "run/model")
    found = evaluate(classifier, documents_of(toy_folder, "test", classifier.taxonomy))
    assert found.metrics.values == pytest.approx(result["test"], abs=1e-6)


@pytest.mark.parametrize("batch_size", [0, -5, 1.5])
def test_a_size_of_batches_that_is_none_is_refused(finished_run: Path, toy_folder: Path, batch_size: Any) -> None:
    classifier = Classifier.from_pretrained(finished_run / "model")
    with pytest.raises(ValueError, match=rf"^batch_size={batch_size}: expected an integer >= 1"):
        evaluate(classifier, documents_of(toy_folder, "test", classifier.taxonomy), batch_size=batch_size)


def test_a_folder_with_a_dot_keeps_its_name_and_a_file_is_no_folder(
    finished_run: Path, toy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = toy_folder.rename(tmp_path / "news.2023")
    main(["evaluate", str(finished_run / "model"), str(data)])
    assert (tmp_path / "evaluations/news.2023-test/evaluation.json").exists()
    (tmp_path / "file").touch()
    assert "file is a file; give a folder below folders" in refused(
        [str(finished_run / "model"), str(data), "-o", str(tmp_path / "file/x/y")]
    )


def test_the_size_of_batches_does_not_change_scores(finished_run: Path, toy_folder: Path) -> None:
    classifier = Classifier.from_pretrained(finished_run / "model")
    found = [
        evaluate(classifier, documents_of(toy_folder, "test", classifier.taxonomy), batch_size=size) for size in (1, 5)
    ]
    assert found[0].metrics.values == pytest.approx(found[1].metrics.values, abs=1e-6)
    assert found[0].document_ids == [f"test:{number}" for number in range(1, 8)]
    assert [prediction.row for prediction in found[0].predictions] == list(range(7))


def refused(arguments: list[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", *arguments])
    return str(caught.value)


def test_what_does_not_fit_is_one_line(finished_run: Path, toy_folder: Path, tmp_path: Path) -> None:
    model = str(finished_run / "model")
    out = ["-o", str(tmp_path / "scores")]
    assert refused([model, str(tmp_path / "nothing"), *out]) == (
        f"error: {tmp_path}/nothing: no such folder or file; expected data in the project's form"
    )
    assert "nothing: no such folder" in refused(["no/model", str(tmp_path / "nothing"), *out])  # before it is opened
    (toy_folder / "test.jsonl").rename(tmp_path / "kept")
    assert refused([model, str(toy_folder), *out]) == (
        f"error: {toy_folder}: no test.jsonl (or .gz) there; set --split to one of: train, val"
    )
    other = write_folder(tmp_path / "other", [*TOY_EDGES, ("C", "CB")], test=[{"text": "x", "labels": [["C", "CB"]]}])
    assert "other/taxonomy.tsv: the model lacks the edge 'C' -> 'CB' (and 0 more); expected" in refused(
        [model, str(other), *out]
    )
    fewer = write_folder(tmp_path / "fewer", TOY_EDGES[:-1], test=[{"text": "x", "labels": [["C"]]}])
    assert "fewer/taxonomy.tsv: lacks the edge 'C' -> 'CA'" in refused([model, str(fewer), *out])
    assert "test.jsonl:1: labels: label 'CB' is not in the taxonomy" in refused(
        [model, str(other / "test.jsonl"), *out]
    )
    assert not (tmp_path / "scores").exists()


def test_a_folder_with_something_else_is_left_alone(finished_run: Path, toy_folder: Path, tmp_path: Path) -> None:
    model = str(finished_run / "model")
    out = tmp_path / "scores"
    main(["evaluate", model, str(toy_folder), "-o", str(out)])
    assert "holds an evaluation already; give another folder, or --overwrite" in refused(
        [model, str(toy_folder), "-o", str(out)]
    )
    main(["evaluate", model, str(toy_folder), "--split", "val", "-o", str(out), "--overwrite"])
    assert json.loads((out / "evaluation.json").read_text())["split"] == "val"
    for place in (finished_run, toy_folder):  # a run, and data
        assert "is there already, and holds no evaluation" in refused(
            [model, str(toy_folder), "-o", str(place), "--overwrite"]
        )
    assert (toy_folder / "train.jsonl").exists()
