"""What W&B has of a run, read back from its files, against ``result.json`` and the other files of the folder."""

from __future__ import annotations

import csv
import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import TOY_DOCUMENTS
from helpers import only_run, start, toy_arguments
from omegaconf import OmegaConf
from warm import warm_python

LEARNS = ["logger=many", "optimizer.learning_rate=0.005", "optimizer.new_rate_factor=1", "trainer.max_epochs=8"]


def inspect(file: Path, *options: str) -> str:
    done = subprocess.run(
        [warm_python(), "-m", "wandb", "leet", "inspect", "--json", *options, str(file)],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout


def legs(run_dir: Path) -> list[Path]:
    """The files of W&B: one, and one more each time that the run was resumed."""
    return sorted(run_dir.glob("wandb/offline-run-*/*.wandb"))


def records(file: Path, kind: str) -> list[dict[str, Any]]:
    lines = map(json.loads, inspect(file).splitlines())
    return [line[kind] for line in lines if line["type"] == kind]


def history(run_dir: Path) -> list[dict[str, Any]]:
    """Rows of all legs, without tables, pictures and W&B's own columns."""
    rows = [record["item"] for file in legs(run_dir) for record in records(file, "history")]
    rows = [{name: value for name, value in row.items() if not name.startswith("_")} for row in rows]
    return [row for row in rows if "epoch" in row]


def assert_nothing_twice(run_dir: Path) -> None:
    points = Counter((name, row["trainer/global_step"]) for row in history(run_dir) for name in row if "/" in name)
    twice = {point for point, count in points.items() if count > 1 and point[0] != "trainer/global_step"}
    assert not twice
    assert sum("test/h_f1_macro" in row for row in history(run_dir)) == 1


def assert_curves_are_those_of_the_csv(run_dir: Path) -> None:
    expected = [
        {name: float(value) for name, value in row.items() if value}
        for row in csv.DictReader((run_dir / "metrics.csv").open())
    ]
    for row in expected:
        row["trainer/global_step"] = row.pop("step")
    assert history(run_dir) == expected
    [*_, last] = (row for row in expected if "train/loss" in row)
    assert last["train/gradient_norm"] > 0
    assert 0.1 < last["train/memory_gib"] < 10


def assert_summary_is_the_result(summary: dict[str, Any], result: dict[str, Any], run_dir: Path) -> None:
    for prefix, split in (("best", "val"), ("test", "test")):
        scores = {name: value for name, value in summary.items() if name.startswith(f"{prefix}/")}
        tables = {"test/per_label", "test/wrong_predictions"}
        assert {name: value for name, value in scores.items() if name not in tables} == {
            f"{prefix}/{name}": value for name, value in result[split].items()
        }
    for name in ("best_score", "steps", "epochs", "seconds", "num_parameters", "thresholds", "git_sha", "git_dirty"):
        assert summary[name] == result[name]
    rows = history(run_dir)
    validations = [row for row in rows if "val/h_f1_macro" in row]
    assert len(validations) == result["epochs"]
    assert summary["val/h_f1_macro"] == {"max": max(row["val/h_f1_macro"] for row in validations)}
    assert summary["val/h_f1_macro"]["max"] == result["best_score"] > 0
    assert summary["val/label_loss"] == {"min": min(row["val/label_loss"] for row in validations)}
    assert summary["train/loss"] == {"min": min(row["train/loss"] for row in rows if "train/loss" in row)}


def assert_wrong_predictions_are_those_of_the_file(run_dir: Path) -> None:
    [file] = run_dir.glob("wandb/offline-run-*/files/media/table/test/wrong_predictions*")
    table = json.loads(file.read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    lines = [json.loads(line) for line in (run_dir / "predictions.jsonl").read_text().splitlines()]
    expected = {
        line["id"]: [
            "\n".join(" > ".join(path) for path in line["labels"]),
            "\n".join(" > ".join(path["path"]) for path in line["predicted"]),
            "\n".join(f"{path['probabilities'][-1]:.4f}" for path in line["predicted"]),
        ]
        for line in lines
        if sorted(line["labels"]) != sorted(path["path"] for path in line["predicted"])
    }
    assert {row["id"]: [row["true"], row["predicted"], row["probability"]] for row in rows} == expected
    texts = [document["text"] for document in [*TOY_DOCUMENTS, TOY_DOCUMENTS[0]]]
    assert all(row["text"] == texts[int(row["id"].removeprefix("test:")) - 1] for row in rows)
    assert [row["f1"] for row in rows] == sorted(row["f1"] for row in rows)


def assert_each_document_is_predicted_once(run_dir: Path, result: dict[str, Any], ranks: int) -> None:
    """And the metrics are those that are counted from the predictions."""
    assert result["num_devices"] == ranks
    lines = [json.loads(line) for line in (run_dir / "predictions.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"test:{number}" for number in range(1, 8)]
    exact = [sorted(line["labels"]) == sorted(path["path"] for path in line["predicted"]) for line in lines]
    assert result["test"]["exact_match"] == pytest.approx(sum(exact) / 7)


def assert_artifacts_are_those_of_the_run(run_dir: Path, result: dict[str, Any]) -> None:
    artifacts = {artifact["type"]: artifact for artifact in records(legs(run_dir)[0], "artifact")}
    [split] = artifacts["split-ids"]["manifest"]["contents"]
    ids = json.loads(Path(split["local_path"]).read_text())
    assert ids["train"] == [f"train:{number}" for number in range(1, 25)]
    assert {split: len(each) for split, each in ids.items()} == result["num_documents"]
    model = artifacts["model"]
    files = {content["path"]: content for content in model["manifest"]["contents"]}
    assert set(files) == {path.name for path in (run_dir / "model").iterdir()}
    assert files["config.json"]["ref"] == (run_dir / "model/config.json").as_uri()
    assert json.loads(model["metadata"])["test"] == result["test"]


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_offline_run_has_what_the_folder_has(toy_folder: Path, tmp_path: Path, ranks: int) -> None:
    devices = ["trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={ranks}"]
    arguments = [*toy_arguments(toy_folder), *devices, *LEARNS, "model.tune_threshold=level"]
    done = start(tmp_path, *arguments, "logger.wandb.tags=[mine]")
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("W&B runs offline") == 1
    run_dir = only_run(tmp_path)
    result = json.loads((run_dir / "result.json").read_text())
    [file] = legs(run_dir)
    read = json.loads(inspect(file, "--summary"))
    assert read["state"] == "finished"
    assert read["run_id"] == result["wandb_run_id"]
    assert_summary_is_the_result(read["summary"], result, run_dir)
    assert_curves_are_those_of_the_csv(run_dir)
    assert_nothing_twice(run_dir)
    assert_wrong_predictions_are_those_of_the_file(run_dir)
    assert_artifacts_are_those_of_the_run(run_dir, result)
    assert_each_document_is_predicted_once(run_dir, result, ranks)
    [config] = records(file, "config")
    settings = OmegaConf.to_container(OmegaConf.load(run_dir / "config.yaml"))
    assert config["update"] == {**settings, "dataset_fingerprint": result["dataset_fingerprint"]}
    [run] = records(file, "run")
    assert run["display_name"].startswith("toy ptmt dataset.batch_size=4 backbone=tiny ")
    assert run["display_name"].endswith("model.tune_threshold=level")
    assert run["job_type"] == "train"
    assert run["tags"] == ["toy", "ptmt", "tiny", "mine"]
    assert run["git"]["commit"] == result["git_sha"]


@pytest.mark.slow
def test_jobs_of_a_sweep_are_runs_of_one_group(toy_folder: Path, tmp_path: Path) -> None:
    done = start(tmp_path, "-m", *toy_arguments(toy_folder), *LEARNS, "trainer.max_epochs=1", "seed=0,1")
    assert done.returncode == 0, done.stdout + done.stderr
    folders = [path.parent for path in (tmp_path / "outputs/toy/ptmt").glob("*/result.json")]
    runs = [record for folder in folders for file in legs(folder) for record in records(file, "run")]
    assert len({run["run_id"] for run in runs}) == 2
    assert sorted(run["display_name"][-6:] for run in runs) == ["seed=0", "seed=1"]
    [group] = {run["run_group"] for run in runs}
    assert {json.loads((folder / "result.json").read_text())["group"] for folder in folders} == {group}


@pytest.mark.slow
def test_an_experiment_is_the_group_of_a_single_run(toy_folder: Path, tmp_path: Path) -> None:
    arguments = [*toy_arguments(toy_folder), "experiment=without_count", "logger=wandb", "trainer.max_epochs=1"]
    done = start(tmp_path, *arguments, "logger.wandb.name=chosen", "logger.wandb.log_model=true")
    assert done.returncode == 0, done.stdout + done.stderr
    run_dir = only_run(tmp_path)
    [run] = records(legs(run_dir)[0], "run")
    assert (run["run_group"], run["display_name"]) == ("without_count", "chosen")
    [model] = (artifact for artifact in records(legs(run_dir)[0], "artifact") if artifact["type"] == "model")
    places = {content["local_path"] for content in model["manifest"]["contents"]}
    assert places == {str(path) for path in (run_dir / "model").iterdir()}  # to be read there: no copy on disk


@pytest.mark.slow
def test_a_resumed_run_is_one_run_with_one_test(toy_folder: Path, tmp_path: Path) -> None:
    done = start(tmp_path, *toy_arguments(toy_folder), *LEARNS, "trainer.max_epochs=1", "test=false")
    assert done.returncode == 0, done.stdout + done.stderr
    run_dir = only_run(tmp_path)
    (run_dir / "result.json").unlink()
    saved = OmegaConf.load(run_dir / "config.yaml")
    saved.test, saved.trainer.max_epochs = True, 3
    OmegaConf.save(saved, run_dir / "config.yaml")
    done = start(tmp_path, f"resume={run_dir}")
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (records(file, "run")[0] for file in legs(run_dir))
    assert (first["run_id"], first["display_name"]) == (second["run_id"], second["display_name"])
    assert_nothing_twice(run_dir)
    result = json.loads((run_dir / "result.json").read_text())
    summary = json.loads(inspect(legs(run_dir)[-1], "--summary"))["summary"]
    assert {f"test/{name}": value for name, value in result["test"].items()}.items() <= summary.items()


# ---- the table of what went wrong ----
