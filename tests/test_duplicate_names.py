"""A taxonomy with many names that are there twice, and documents without a label, through everything."""

from __future__ import annotations

import csv
import html
import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from conftest import saved_ptmt
from duplicate_names import PATHS, TAXONOMY, documents, write_data
from helpers import FAST, run, start
from served import served
from test_systems import SETTINGS, SYSTEMS

from ptmt_lightning.cli import main
from ptmt_lightning.inference import Classifier
from ptmt_lightning.models.ptmt.template import label_tokens
from ptmt_lightning.reporting.significance import resample
from ptmt_lightning.run_folder.finished import Run
from ptmt_lightning.run_folder.mistakes import wrong_predictions
from ptmt_lightning.run_folder.prediction import DocumentPrediction
from ptmt_lightning.taxonomy import Taxonomy

TEXTS = [str(document["text"]) for document in documents()]
LABELS = [[list(path) for path in document["labels"]] for document in documents()]  # type: ignore[attr-defined]


def test_there_are_twenty_of_them() -> None:
    counts = Counter(TAXONOMY.labels)
    assert sum(counts[label] for label in TAXONOMY.labels if counts[label] > 1) >= 20
    assert len(set(label_tokens(TAXONOMY))) == len(set(TAXONOMY.names)) == len(TAXONOMY)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without pruning that has learnt a little; its folder and, beside it, that of the data."""
    folder = tmp_path_factory.mktemp("duplicates")
    settings: dict[str, Any] = {"optimizer": FAST, "prune": False, "tune_threshold": "global"}
    run(write_data(folder / "data"), folder, folder / "run", **settings, trainer={"max_epochs": 12})
    return folder / "run"


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def check_run(folder: Path, taxonomy: Taxonomy) -> None:
    """Whether its tables call single nodes by their names, and its paths by labels."""
    with (folder / "per_label.csv").open() as file:
        assert sorted(row["label"] for row in csv.DictReader(file)) == sorted(taxonomy.names)
    found = lines_of(folder / "predictions.jsonl")
    assert [sorted(document["labels"]) for document in found] == [sorted(paths) for paths in LABELS]
    for document in found:
        for path in document["predicted"]:
            assert taxonomy.path_names(taxonomy.path_nodes(path["path"])) == path["path"]
    assert Taxonomy.from_json(folder / "model/taxonomy.json").fingerprint == taxonomy.fingerprint


def test_a_run_leaves_all_of_its_files(finished: Path) -> None:
    check_run(finished, TAXONOMY)
    embeddings = pd.read_csv(finished / "label_embeddings.csv", keep_default_na=False)
    assert list(embeddings["label"]) == list(TAXONOMY.names)
    assert set(embeddings["parent"]) <= {*TAXONOMY.names, "ROOT"}
    assert {path.stem for path in (finished / "figures").glob("*.png")} >= {"label_f1", "label_map", "reliability"}


def test_an_evaluation_gives_the_scores_of_the_run(finished: Path, tmp_path: Path) -> None:
    main(["evaluate", str(finished / "model"), str(finished.parent / "data"), "-o", str(tmp_path / "scores")])
    found = json.loads((tmp_path / "scores/evaluation.json").read_text())
    assert found["metrics"] == pytest.approx(json.loads((finished / "result.json").read_text())["test"], abs=1e-6)


def test_an_evaluation_needs_no_taxonomy_file(finished: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", with_taxonomy=False)
    main(["evaluate", str(finished / "model"), str(data), "-o", str(tmp_path / "scores")])
    assert lines_of(tmp_path / "scores/predictions.jsonl") == lines_of(finished / "predictions.jsonl")


def test_predictions_are_paths_of_labels(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    main(["predict", str(finished / "model"), str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl")])
    paths = [[path["path"] for path in line["predicted"]] for line in lines_of(tmp_path / "out.jsonl")]
    of_run = [[path["path"] for path in line["predicted"]] for line in lines_of(finished / "predictions.jsonl")]
    assert [sorted(found) for found in paths] == [sorted(found) for found in of_run]
    assert any(len(path) > 1 and path[1] == "Battery" for found in paths for path in found)


def test_a_bootstrap_reads_the_saved_paths(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    scored = resample([Run(finished, result, {})], "h_f1_micro")
    assert scored.measured == pytest.approx(result["test"]["h_f1_micro"], abs=1e-6)


@pytest.mark.parametrize("file_format", ["onnx", pytest.param("torch_export", marks=pytest.mark.slow)])
def test_exported_models_predict_the_same(file_format: str, tmp_path: Path) -> None:
    saved_ptmt(tmp_path, TAXONOMY)
    main(["export", str(tmp_path / "model"), "-o", str(tmp_path / "exported"), "--format", file_format])
    trained = Classifier.from_pretrained(tmp_path / "model", device="cpu")
    exported = Classifier.from_pretrained(tmp_path / "exported", trust=True)
    assert exported.taxonomy.fingerprint == TAXONOMY.fingerprint
    ours, theirs = trained.predict(TEXTS), exported.predict(TEXTS)
    assert [[path.labels for path in found] for found in ours] == [[path.labels for path in found] for found in theirs]


def test_the_table_of_mistakes_shows_paths_and_documents_without_a_label() -> None:
    nodes = TAXONOMY.encode([["Phone", "Battery"]])
    wrong = [DocumentPrediction(0, nodes, [0.9, 0.8], [], []), DocumentPrediction(1, [], [], nodes, [0.1, 0.2])]
    right = DocumentPrediction(2, [], [], [], [])
    table = wrong_predictions([*wrong, right], ["a", "b", "c"], ["m", "n", "o"], TAXONOMY)
    assert table[["id", "true", "predicted", "probability", "f1"]].to_numpy().tolist() == [
        ["a", "", "Phone > Battery", "0.8000", 0.0],
        ["b", "Phone > Battery", "", "", 0.0],
    ]


# ---- every system, and what is slow ----


@pytest.mark.slow
@pytest.mark.parametrize("system", ["ptmt", "hbgl", "gacaps", "hpt"])  # whose layers know the labels' names
def test_every_system_learns_them_by_heart(system: str, tmp_path: Path) -> None:
    """Without a taxonomy file, with W&B offline; documents without a label end without a prediction."""
    data = write_data(tmp_path / "data", with_taxonomy=False)
    epochs = {"hbgl": 240, "gacaps": 20}.get(system, 100)
    done = start(
        tmp_path, "dataset=jsonl", f"dataset.path={data}", "dataset.name=twice", "dataset.batch_size=8", *SETTINGS,
        f"trainer.max_epochs={epochs}", "trainer.check_val_every_n_epoch=20", "logger=many", f"model={system}",
        *SYSTEMS[system],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (
        "no taxonomy.tsv there; taken from the label paths: 26 labels on 3 levels (4 / 20 / 2), 0 of them"
        in done.stdout
    )
    [folder] = (tmp_path / "outputs/twice" / system).iterdir()
    check_run(folder, Taxonomy.from_paths(PATHS))
    if system != "gacaps":  # learns slowly; test_systems.py waits for it
        scores = json.loads((folder / "result.json").read_text())["test"]
        assert scores["h_f1_micro"] > 0.95, scores
        unlabelled = [line for line in lines_of(folder / "predictions.jsonl") if not line["labels"]]
        assert [line["predicted"] for line in unlabelled] == [[], []]
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))
    main(["report", str(folder), "--html", str(tmp_path / "page.html"), "--baseline", f"model={system}"])
    page = html.unescape((tmp_path / "page.html").read_text()).replace("\\u003e", ">")  # names stand in JSON
    assert "Laptop > Battery" in page


@pytest.mark.slow
def test_one_label_a_level_and_none(tmp_path: Path) -> None:
    """With cross-entropy, and data of one path a document."""
    data = write_data(tmp_path / "data")
    for split in ("train", "val", "test"):
        kept = [json.dumps(document) for document in documents() if len(document["labels"]) < 2]  # type: ignore[arg-type]
        (data / f"{split}.jsonl").write_text("\n".join(kept))
    done = start(
        tmp_path, "dataset=jsonl", f"dataset.path={data}", "dataset.name=twice", "dataset.batch_size=8", *SETTINGS,
        "trainer.max_epochs=100", "trainer.check_val_every_n_epoch=20", "loss=cross_entropy",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "outputs/twice/ptmt").iterdir()
    assert json.loads((folder / "result.json").read_text())["test"]["exact_match"] > 0.9


@pytest.mark.slow
def test_a_server_answers_with_labels(tmp_path: Path) -> None:
    with served(tmp_path, taxonomy=TAXONOMY) as server:
        answer = httpx.post(f"{server.url}/predict", json={"texts": TEXTS[:4], "top_k": 2}).json()["predictions"]
        taxonomy = httpx.get(f"{server.url}/taxonomy").json()
        expected = server.classifier.predict(TEXTS[:4], top_k=2)
    ours = [[path["path"] for path in found] for found in answer]
    assert ours == [[list(path.labels) for path in found] for found in expected]
    assert taxonomy["labels"]["Phone > Battery"] == "Battery"
    assert ["Phone", "Phone > Battery"] in taxonomy["edges"]
