"""A system, loss, metric, data set, backbone family and outputs of one's own, added as guides/extending.md says."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT_DIR, TOY_DOCUMENTS, TOY_EDGES, saved_ptmt
from helpers import start

from ptmt_lightning.backbones import FromScratch
from ptmt_lightning.inference import Classifier
from ptmt_lightning.inference.output_files import WRITERS
from ptmt_lightning.inference.predict_file import predict_file
from ptmt_lightning.run_folder.finished import find_runs
from ptmt_lightning.taxonomy import Taxonomy

TOYS = ROOT_DIR / "tests/toys"


def toy_backbone(folder: Path) -> Path:
    """Save a backbone of the toy family."""
    source = FromScratch(hidden_size=32, intermediate_size=64)
    backbone, tokenizer, _ = source.load(document["text"] for document in TOY_DOCUMENTS)  # type: ignore[misc]
    backbone.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "toybert", "architectures": ["ToyForMaskedLM"]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.slow
def test_all_of_them_in_one_run_from_the_command_line(tmp_path: Path) -> None:
    done = start(
        tmp_path, "--config-dir", str(TOYS / "conf"), "model=toy", "model.scale=2", "loss=toy", "dataset=toy",
        "dataset.batch_size=4", f"backbone.name={toy_backbone(tmp_path / 'backbone')}", "trainer=cpu",
        "trainer.max_epochs=2", "trainer.log_every_n_steps=1", "trainer.enable_progress_bar=false",
        "callbacks.progress_bar=null", "monitor=val/toy_labels_a_document",
        PYTHONPATH=f"{TOYS}:{ROOT_DIR / 'tests'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [run], left_out = find_runs([tmp_path / "outputs"])
    assert left_out == []
    assert run.folder.parent == tmp_path / "outputs/toy/toy"
    assert (run.result["model"], run.result["loss"], run.result["dataset"]) == ("toy", "toy", "toy")
    assert run.result["test"]["toy_labels_a_document"] >= 0  # the metric
    assert "toy_labels_a_document" in done.stdout
    assert run.settings["model.scale"] == "2"  # the system's own setting
    curves = pd.read_csv(run.folder / "metrics.csv")
    assert curves["train/toy_size"].notna().any()
    settings = json.loads((run.folder / "model/toy.json").read_text())
    assert settings["decision"] == "sigmoid"  # the loss named it
    assert (run.folder / "toy.txt").read_text() == f"toy: {len(TOY_EDGES)} labels\n"  # the output
    assert json.loads((run.folder / "model/config.json").read_text())["model_type"] == "toybert"


def test_a_misspelt_setting_of_a_folder_of_ones_own_is_refused(tmp_path: Path) -> None:
    done = start(tmp_path, "--config-dir", str(TOYS / "conf"), "model=toy", "model.scael=2", PYTHONPATH=str(TOYS))
    assert done.returncode == 2
    assert done.stderr == (
        "error: model.scael=2: no key 'model.scael' in the configuration; did you mean 'model.scale'?\n"
    )


def test_a_format_of_ones_own(tmp_path: Path, toy_taxonomy: Taxonomy, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_paths(lines: Path, target: Path) -> None:
        records = map(json.loads, lines.read_text().splitlines())
        target.write_text("".join("/".join(record["predicted"][0]["path"]) + "\n" for record in records))

    monkeypatch.setitem(WRITERS, "paths", write_paths)
    saved_ptmt(tmp_path, toy_taxonomy)
    (tmp_path / "in.txt").write_text("m n\nx\n")
    classifier = Classifier.from_pretrained(tmp_path / "model")
    predict_file(classifier, str(tmp_path / "in.txt"), str(tmp_path / "out.paths"), top_k=1)
    expected = ["/".join(classifier.predict(text, top_k=1)[0].labels) for text in ("m n", "x")]
    assert (tmp_path / "out.paths").read_text().splitlines() == expected


def test_the_page_says_where_each_is_added() -> None:
    page = (ROOT_DIR / "docs/guides/extending.md").read_text()
    for place in ("conf/model/", "conf/loss/", "conf/dataset/", "METRICS", "FAMILIES", "OUTPUTS", "WRITERS"):
        assert place in page
