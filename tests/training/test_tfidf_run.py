"""A whole run of the TF-IDF baseline: its folder, what is chosen on validation, and the command line."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from conftest import TOY_DOCUMENTS, TOY_EDGES, datamodule, write_folder
from helpers import start, toy_arguments

from ptmt_lightning.models.tfidf import TfidfClassifier
from ptmt_lightning.reporting.report import table
from ptmt_lightning.run_folder.finished import find_runs
from ptmt_lightning.run_folder.paths import RunFolder
from ptmt_lightning.training.tfidf import build_tfidf, fit_tfidf

NAMES = {"model": "tfidf", "backbone": "none", "loss": "logistic", "variant": None}


def run(
    folder: Path, tmp_path: Path, data: dict[str, Any] | None = None, **settings: Any
) -> tuple[dict[str, Any], RunFolder]:
    module = datamodule(folder, tmp_path, **data or {})
    model = build_tfidf(module, partial(TfidfClassifier, **settings))
    found = RunFolder(tmp_path / "run")
    config = {"run": {**NAMES, "dir": str(found.path)}}
    return fit_tfidf(datamodule=module, model=model, run_dir=found.path, config=config), found


def test_the_folder_is_that_of_a_trained_system_and_is_reported_beside_it(
    toy_folder: Path, tmp_path: Path, finished_run: Path
) -> None:
    result, folder = run(toy_folder, tmp_path)
    assert json.loads(folder.result.read_text()) == result
    trained = json.loads((finished_run / "result.json").read_text())
    assert result.keys() == trained.keys() | {"C", "dir"}
    for part in ("val", "test", "seconds", "num_documents", "versions"):
        assert result[part].keys() == trained[part].keys()
    assert result["dataset_fingerprint"] == trained["dataset_fingerprint"]
    assert result["dataset_protocol"] == trained["dataset_protocol"] == "splits of the data folder"
    ours, theirs = ({path.name for path in there.iterdir()} for there in (folder.path, finished_run))
    assert theirs - ours <= {"metrics.csv", "checkpoints", "label_embeddings.csv"}
    assert ours <= theirs
    lines = [json.loads(line) for line in folder.predictions.read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"test:{number}" for number in range(1, 8)]
    assert [line["labels"] for line in lines[:2]] == [[["A", "AA", "AAA"]], [["C"]]]
    assert len(pd.read_csv(folder.per_label)) == len(TOY_EDGES)
    trained_run = tmp_path / "trained"
    shutil.copytree(finished_run, trained_run)
    names = {name: trained[name] for name in NAMES} | {"dir": str(trained_run)}
    (trained_run / "config.yaml").write_text(yaml.safe_dump({"run": names}))
    runs, left_out = find_runs([folder.path, trained_run])
    assert left_out == []
    assert [{run.settings[f"run.{name}"] for run in runs} for name in ("model", "loss")] == [
        {"tfidf", "ptmt"},
        {"logistic", "wasl"},
    ]
    assert len(table(runs)) == 2


def test_it_learns_several_paths_by_heart(toy_folder: Path, tmp_path: Path) -> None:
    result, folder = run(toy_folder, tmp_path)
    assert result["test"]["exact_match"] == result["val"]["h_f1_macro"] == result["best_score"] == 1
    lines = [json.loads(line) for line in folder.predictions.read_text().splitlines()]
    assert sorted(one["path"] for one in lines[2]["predicted"]) == [["A", "AB"], ["B", "BB"]]


def test_a_graph_with_unlabelled_documents_and_labels_without_any(tmp_path: Path) -> None:
    edges = [*TOY_EDGES, ("A", "other"), ("B", "other"), ("C", "never")]
    documents = [
        *TOY_DOCUMENTS,
        {"text": "v w", "labels": [["A", "other"], ["B", "other"]]},
        {"text": "k l", "labels": []},
    ]
    folder = write_folder(tmp_path / "data", edges, train=documents * 4, val=documents, test=documents)
    result, run_folder = run(folder, tmp_path)
    assert result["test"]["exact_match"] == 1
    lines = [json.loads(line) for line in run_folder.predictions.read_text().splitlines()]
    assert lines[-1]["predicted"] == []
    assert len(lines[-2]["predicted"]) == 2


@pytest.mark.parametrize(
    ("decoding", "paths"), [({"decoding": "best_path"}, 1), ({"decoding": "top_k", "top_k": 2}, 2)]
)
def test_decoding_is_that_of_all_systems(
    decoding: dict[str, Any], paths: int, toy_folder: Path, tmp_path: Path
) -> None:
    result, folder = run(toy_folder, tmp_path, **decoding, threshold=0.3)
    assert result["thresholds"] == [0.3] * 3  # not tuned where they decide nothing
    lines = [json.loads(line) for line in folder.predictions.read_text().splitlines()]
    top = [{one["path"][0] for one in line["predicted"]} for line in lines]
    assert all(len(names) == paths for names in top)


def test_c_and_thresholds_are_chosen_on_validation(toy_folder: Path, tmp_path: Path) -> None:
    result, _ = run(toy_folder, tmp_path, C=[1e-6, 10], tune_threshold="level")
    assert result["C"] == 10
    assert len(result["thresholds"]) == 3


def test_the_drawn_documents_are_those_of_all_systems(toy_folder: Path, tmp_path: Path) -> None:
    module = datamodule(toy_folder, tmp_path, train_fraction=0.5, seed=3)
    build_tfidf(module, TfidfClassifier)
    texts, targets = module.labelled_texts("train")
    known = {document["text"]: module.taxonomy.encode(document["labels"]) for document in TOY_DOCUMENTS}  # type: ignore[arg-type]
    assert [known[text] for text in texts] == [row.nonzero()[0].tolist() for row in targets]
    assert targets.sum(axis=0).tolist() == module.label_counts("train").tolist()
    assert len(texts) == 12


def test_a_monitor_that_it_has_not_is_refused(toy_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"^monitor='val/label_loss': model=tfidf has no such metric; set one of val/h_f1"
    ):
        build_tfidf(datamodule(toy_folder, tmp_path), TfidfClassifier, monitor="val/label_loss")


# ---- the command line ----


@pytest.mark.slow
def test_the_command_line_tells_what_is_not_used_and_writes_down_what_is(toy_folder: Path, tmp_path: Path) -> None:
    arguments = [
        *toy_arguments(toy_folder),
        "model=tfidf",
        "model.C=[1,10]",
        "logger=many",
        "logger.wandb.offline=true",
    ]
    done = start(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    [run_dir] = (tmp_path / "outputs/toy/tfidf").iterdir()
    assert (
        "not used: backbone=tiny backbone.hidden_size=32 trainer=cpu trainer.max_epochs=2" in done.stdout + done.stderr
    )
    assert "h_f1_macro" in done.stdout
    config = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert config["run"] | NAMES == config["run"]
    assert config["model"]["C"] == [1, 10]
    assert config.keys().isdisjoint({"backbone", "loss", "optimizer", "trainer", "callbacks"})
    assert json.loads((run_dir / "result.json").read_text())["wandb_run_id"]
    assert list(run_dir.glob("wandb/offline-run-*/*.wandb"))
    again = [*arguments, f"hydra.run.dir={run_dir}"]
    done = start(tmp_path, *again)
    assert done.returncode == 1
    assert "holds a finished run; give another folder, or replace it with overwrite=true" in done.stderr
    assert start(tmp_path, *again, "overwrite=true").returncode == 0


def test_a_setting_of_another_system_is_refused(toy_folder: Path, tmp_path: Path) -> None:
    done = start(tmp_path, *toy_arguments(toy_folder), "model=tfidf", "experiment=without_mlm")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: model.alpha: TfidfClassifier has no such setting; leave out")
