"""``ptmt data import`` and ``ptmt data info`` on tables and folders of labelled documents."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import TOY_DOCUMENTS, write_folder
from family_models import save_family

from ptmt_lightning.cli import main
from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.data.document import read_documents

ROWS = "".join(f'"Ticket {i} says: hello, {i}";Sales;S{i % 2}\n' for i in range(40))


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty tickets in the working folder."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tickets.csv"
    path.write_text("body;dept;cat\n" + ROWS)
    return path


def described(*arguments: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    main(["data", "info", *arguments, "--json"])
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def test_import_writes_a_folder_to_train_on(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(
        [
            "data",
            "import",
            "tickets.csv",
            "-o",
            "mine",
            "--text",
            "body",
            "--levels",
            "dept",
            "cat",
            "--test-share",
            "0",
        ]
    )
    assert capsys.readouterr().out.splitlines() == [
        "tickets.csv: text from 'body', labels from 'dept', 'cat'; columns separated by ';'",
        "tickets.csv: 40 document(s), 1 / 2 labels a level; train 36, val 4, test 0 (val drawn with --split-seed=0)",
        "written: mine; next: ptmt train dataset=jsonl dataset.path=mine",
    ]
    data = HTCDataModule("mine")
    data.prepare_data()
    assert len(list(read_documents(tmp_path / "mine/train.jsonl", "train", data.taxonomy))) == 36


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "mine"], "tickets.csv: no column 'text'; it has 'body', 'dept', 'cat' separated by ';'; set --text to "
         "the one with the text"),
        (["-o", "mine", "--text", "body", "--paths", "cat", "--val-share", "1"], "--val-share=1.0: expected a "
         "number in "
         "[0, 1); set --val-share to one"),
        (["-o", "no/mine", "--text", "body", "--paths", "cat"], "--output no/mine: no folder 'no'; make it first"),
        (["-o", ".", "--text", "body", "--paths", "cat"], "--output .: it is there already; expected a new folder; "
         "remove it or name another"),
        (["-o", "mine", "--text", "body", "--paths", "cat", "--path-separator", "", "--split-column", "dept"],
         "tickets.csv:2: column 'dept': 'Sales': expected train, val (valid, validation, dev) or test; 39 more row(s) "
         "are bad; --skip-bad-rows leaves such rows out"),
    ],
)  # fmt: skip
def test_a_refused_import_leaves_nothing(table: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as error:
        main(["data", "import", "tickets.csv", *arguments])
    assert error.value.code == f"error: {message}"
    assert list(tmp_path.iterdir()) == [table]


def test_an_export_of_label_studio_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    value = {"taxonomy": [["Eukarya", "Human"], ["Bacteria"]]}
    result = [{"from_name": "kind", "to_name": "text", "type": "taxonomy", "value": value}]
    tasks = [{"id": i, "data": {"text": f"t{i}"}, "annotations": [{"id": i, "result": result}]} for i in range(20)]
    Path("export.json").write_text(json.dumps(tasks))
    for arguments in (["--format", "label-studio", "-o", "one"], ["-o", "two"]):
        main(["data", "import", "export.json", *arguments])
    for name in ("train", "val", "test", "taxonomy"):
        file = next(Path("one").glob(f"{name}.*")).name
        assert Path("one", file).read_bytes() == Path("two", file).read_bytes()
    assert json.loads(Path("one/val.jsonl").read_text().splitlines()[0])["labels"] == value["taxonomy"]


# ---- info ----


def test_info_of_a_folder_counts_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counted by hand."""
    edges = [("ROOT", "A"), ("ROOT", "B"), ("A", "C"), ("B", "C"), ("A", "D"), ("A", "E"), ("B", "F")]
    train = [
        {"text": "m n o", "labels": [["A", "C"]]},
        {"text": "m  n o", "labels": [["A", "D"], ["B"]]},
        {"text": "p", "labels": []},
        *[{"text": f"q{i} r", "labels": [["A", "C"]]} for i in range(5)],
    ]
    val = [{"text": "p", "labels": [["A", "E"]]}, {"text": "s t u v w", "labels": [["A"]]}]
    write_folder(tmp_path / "data", edges, train=train, val=val)
    found = described(str(tmp_path / "data"), "--max-length", "6", capsys=capsys)
    assert found["splits"] == {
        "train": {
            "documents": 8,
            "without_labels": 1,
            "paths_per_document": 1.0,
            "length_median": 2.0,
            "length_95": 3.0,
            "length_max": 3,
            "cut": {"": 0, "model=ptmt": 8},
            "repeated_texts": 1,
        },
        "val": {
            "documents": 2,
            "without_labels": 0,
            "paths_per_document": 1.0,
            "length_median": 3.0,
            "length_95": 4.8,
            "length_max": 5,
            "cut": {"": 1, "model=ptmt": 2},
            "repeated_texts": 0,
        },
    }
    assert found["levels"] == [
        {"level": 1, "labels": 2, "documents_median": 4.0, "documents_min": 1, "documents_max": 7, "imbalance": 7.0,
         "rare": 1, "unseen": 0},
        {"level": 2, "labels": 4, "documents_median": 0.5, "documents_min": 0, "documents_max": 6, "imbalance": 6.0,
         "rare": 1, "unseen": 2},
    ]  # fmt: skip
    assert found["findings"] == {
        "only_in_evaluation": {"count": 1, "examples": ["E"]},
        "nowhere": {"count": 1, "examples": ["F"]},
        "several_parents": {"count": 1, "examples": ["C"]},
        "repeated_names": {"count": 0, "examples": []},
        "texts_in_two_splits": {"train, val": 1},
    }


def test_info_prints_tables_and_draws(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table.write_text("text;level1;level2\n" + ROWS + "twice;A [red];S1\ntwice;A [red];S1\n")
    main(["data", "info", "tickets.csv", "--picture", "p.png"])
    out = capsys.readouterr().out
    assert re.search(r"│ documents +│ +34 │ +4 │ +4 │", out)
    assert "1 name(s) stand for several labels, under different parents: S1" in out
    assert "lengths are in words" in out
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "p.png", "tickets.csv"]


def test_info_counts_tokens(toy_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of an unknown word the tokenizer makes a token a character."""
    model = save_family(tmp_path, "bert", [document["text"] for document in TOY_DOCUMENTS])
    (toy_folder / "test.jsonl").write_text('{"text": "m mnopq", "labels": [["A"]]}\n')
    found = described(str(toy_folder), "--backbone", str(model), "--max-length", "9", capsys=capsys)
    assert found["unit"] == "tokens"
    assert found["splits"]["test"]["length_max"] == 6
    assert {split: figures["cut"] for split, figures in found["splits"].items()} == {
        "train": {"": 0, "model=ptmt": 24}, "val": {"": 0, "model=ptmt": 6}, "test": {"": 0, "model=ptmt": 1}
    }  # fmt: skip


def test_info_of_what_is_no_data_is_one_line(tmp_path: Path) -> None:
    for name, message in {
        "imdb": "error: imdb: no such file or folder; expected a table (csv, tsv, xlsx, parquet, json, jsonl), a "
        "folder",
        str(
            tmp_path
        ): f"error: {tmp_path}: no file train with one of the ends csv, tsv, xlsx, parquet, json, jsonl; ex",
    }.items():
        with pytest.raises(SystemExit) as error:
            main(["data", "info", name])
        assert str(error.value.code).startswith(message)
