"""A training on a table, from the command line."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import httpx
import pytest
from conftest import SHARED, TOY_DOCUMENTS
from helpers import start, toy_arguments
from served import serving_model

CLINC = SHARED / "data" / "clinc150"
QUICK = [
    "backbone=tiny", "backbone.hidden_size=32", "trainer=cpu", "trainer.max_epochs=1", "dataset.train_fraction=0.05",
    "trainer.enable_progress_bar=false", "callbacks.progress_bar=null", "logger=none", "dataset.batch_size=64",
]  # fmt: skip


def test_a_table_is_trained_on(tmp_path: Path) -> None:
    with (tmp_path / "toy.csv").open("w", newline="") as file:
        rows = csv.writer(file, delimiter=";")
        rows.writerow(["body", "topic"])
        for i in range(40):
            document = TOY_DOCUMENTS[i % 6]
            rows.writerow([f"{document['text']} {i}", " | ".join(" > ".join(path) for path in document["labels"])])
    arguments = [a for a in toy_arguments(Path("toy.csv")) if not a.startswith(("dataset=", "dataset.name"))]
    done = start(tmp_path, "dataset=table", *arguments, "dataset.text=body", "dataset.paths=topic")
    assert done.returncode == 0, done.stderr
    said = "toy.csv: 40 document(s), 3 / 7 / 1 labels a level; train 32, val 4, test 4 (val and test drawn with "
    assert said + "dataset.split_seed=0)" in done.stdout + done.stderr
    [run_dir] = (tmp_path / "outputs/toy/ptmt").iterdir()
    assert json.loads((run_dir / "result.json").read_text())["dataset"] == "toy"
    assert len(list((tmp_path / "data/cache").glob("table-*/taxonomy.tsv"))) == 1


def test_a_bad_table_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,level1,level2\na,A,B\nb,,B\n")
    done = start(tmp_path, "dataset=table", "dataset.path=t.csv", *QUICK)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: t.csv:3: column 'level1': empty, but 'level2' below it holds 'B'; expected a label on each level "
        "down to "
        "the last; fill it in; dataset.skip_bad_rows leaves such rows out"
    )
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "data/cache").glob("table-*/"))


@pytest.mark.slow
@pytest.mark.skipif(not CLINC.is_dir(), reason="the data are not there")
def test_from_one_table_of_real_data_to_an_answer_over_http(tmp_path: Path) -> None:
    """22,500 documents of 150 intents of ten domains: what the tutorial does with a table."""
    with (tmp_path / "intents.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "level1", "level2"])
        for split in ("train", "val", "test"):
            with gzip.open(CLINC / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
                records = [json.loads(line) for line in lines]
            rows.writerows([record["text"], *record["labels"][0]] for record in records)
    done = start(tmp_path, "dataset=table", "dataset.path=intents.csv", *QUICK)
    assert done.returncode == 0, done.stderr
    assert "10 / 150 labels a level; train 17,998, val 2,251, test 2,251" in done.stdout + done.stderr
    [run_dir] = (tmp_path / "outputs/intents/ptmt").iterdir()
    result = json.loads((run_dir / "result.json").read_text())
    assert result["test"]["h_auprc"] > 0.03
    assert result["decoding"] == "best_path"
    with serving_model(run_dir / "model") as server:
        texts = ["how much money do i have", "what is the capital of france"]
        answer = httpx.post(f"{server.url}/predict", json={"texts": texts}).raise_for_status().json()
    assert [[path["path"] for path in paths] for paths in answer["predictions"]] == [
        [list(path.labels) for path in paths] for paths in server.classifier.predict(texts)
    ]
    assert [[len(path["path"]) for path in paths] for paths in answer["predictions"]] == [[2], [2]]
