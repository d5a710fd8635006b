"""What the last version left: a run that was cut off goes on, saved models open and predict as they did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TOY_DOCUMENTS, TOY_EDGES, write_folder
from helpers import start
from omegaconf import OmegaConf

from ptmt_lightning.inference import Classifier
from ptmt_lightning.run_folder.earlier_versions import with_new_places
from ptmt_lightning.run_folder.finished import find_runs

LEFT = Path(__file__).parents[1] / "runs/v0.1.0"


def in_place(value: Any, places: dict[str, str]) -> Any:
    """Return the value with the fixture's placeholders replaced by folders."""
    if isinstance(value, str):
        for name, place in places.items():
            value = value.replace(name, place)
        return value
    if isinstance(value, dict):
        return {in_place(key, places): in_place(item, places) for key, item in value.items()}
    return [in_place(item, places) for item in value] if isinstance(value, list) else value


def test_a_run_that_was_cut_off_ends_as_the_last_version_would_have_ended_it(tmp_path: Path) -> None:
    """Cut off after 12 of 24 epochs; what the last version reached uncut stands in expected.json."""
    run_dir = shutil.copytree(LEFT / "cut_off", tmp_path / "run")
    data = write_folder(
        tmp_path / "toy", TOY_EDGES, train=TOY_DOCUMENTS * 4, val=TOY_DOCUMENTS, test=[*TOY_DOCUMENTS, TOY_DOCUMENTS[0]]
    )
    places = {"RUN_DIR": str(run_dir), "DATA": str(data), "CACHE": str(tmp_path / "cache")}
    config = run_dir / "config.yaml"
    config.write_text(in_place(config.read_text(), places))
    for path in (run_dir / "checkpoints").iterdir():
        torch.save(in_place(torch.load(path, weights_only=True), places), path)
    done = start(tmp_path, f"resume={run_dir}")
    assert done.returncode == 0, done.stderr
    result = json.loads((run_dir / "result.json").read_text())
    expected = json.loads((LEFT / "expected.json").read_text())["run"]
    assert (result["epochs"], result["steps"]) == (expected["epochs"], expected["steps"])
    for split in ("val", "test"):  # other processors round otherwise, and a document near a threshold may turn
        assert result[split] == pytest.approx(expected[split], abs=0.1)
    assert result["test"]["h_f1_macro"] > 0.8


@pytest.mark.parametrize(("name", "decision"), [("model", "sigmoid"), ("single_label_model", "level_softmax")])
def test_a_saved_model_predicts_as_it_did(name: str, decision: str) -> None:
    classifier = Classifier.from_pretrained(LEFT / name)
    assert classifier.rule.decision.name == decision
    predicted = classifier.predict([document["text"] for document in TOY_DOCUMENTS])
    expected = json.loads((LEFT / "expected.json").read_text())[name]
    assert [[list(path.labels) for path in paths] for paths in predicted] == [
        [path["path"] for path in paths] for paths in expected
    ]
    for paths, wanted in zip(predicted, expected, strict=True):
        for path, other in zip(paths, wanted, strict=True):
            assert path.probabilities == pytest.approx(other["probabilities"], abs=1e-4)


def test_runs_of_both_versions_are_one_configuration(tmp_path: Path) -> None:
    """What has moved since is the same system, data and callbacks."""
    config = OmegaConf.to_container(OmegaConf.load(LEFT / "cut_off/config.yaml"))
    for name, content in (("old", config), ("new", with_new_places(config))):
        (tmp_path / name).mkdir()
        OmegaConf.save(OmegaConf.create(content), tmp_path / name / "config.yaml")
        result = {"dataset": "toy", "model": "ptmt", "seed": 0, "val": {}, "test": {"h_f1_macro": 0.5}}
        (tmp_path / name / "result.json").write_text(json.dumps(result | {"seconds": {"fit": 1.0}}))
    old, new = find_runs([tmp_path])[0]
    assert "ptmt_lightning.models.ptmt.PTMT" in (tmp_path / "old/config.yaml").read_text()
    assert old.settings == new.settings
