"""The JSON lines in which benchmarks are published: forms, halves, and lines that are refused."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from benchmark_modules import FOLDED
from raw import (
    AMAZON_LABELS,
    KINDS,
    archive,
    benchmark,
    bgc_files,
    bugs_rows,
    jsonl,
    module,
    prepared,
    published,
    put,
    refused,
    sheet,
    table,
    wos_rows,
)

from ptmt_lightning.data.benchmarks.amazon import AmazonDataModule
from ptmt_lightning.data.benchmarks.bugs import BugsDataModule

NAME = "expected a name other than ROOT on one line, with single spaces"


def amazon(tmp_path: Path, train: str | bytes, test: str | bytes = "") -> Any:
    files = {"amazon_train.jsonl": train, "amazon_test.jsonl": test}
    return module(AmazonDataModule, put(tmp_path / "amazon", files))


def test_lines_may_have_the_own_form_blank_lines_and_stray_spaces(tmp_path: Path) -> None:
    train = '{"text": " a ", "labels": [["A", "A_B"]]}\n\n{"labels": [" A ", "A_B "], "text": "b\\nc", "id": 3}\n'
    content = prepared(amazon(tmp_path, train, '{"text": "é", "labels": ["C"]}'))
    assert content["all"] == [(" a ", [["A", "A_B"]]), ("b\nc", [["A", "A_B"]]), ("é", [["C"]])]
    assert content["edges"] == [("ROOT", "A"), ("ROOT", "C"), ("A", "A_B")]
    assert content["summary"]["mean_characters"] == pytest.approx(7 / 3)


@pytest.mark.parametrize("name", ["wos", "bugs", "amazon"])
def test_the_text_has_to_be_text_and_labels_one_path_for_each_benchmark(name: str, tmp_path: Path) -> None:
    files = published(name, AMAZON_LABELS)
    lines = files[f"{name}_test.jsonl"].count("\n")
    files[f"{name}_test.jsonl"] += jsonl([{"text": "Two paths.", "labels": [["A", "B"], ["A", "C"]]}])
    data = module(KINDS[name], put(tmp_path / name, files))
    refused(
        data,
        f'{tmp_path}/{name}/raw/{name}_test.jsonl:{lines + 1}: labels=[["A", "B"], ["A", "C"]]: expected one path, '
        'such as ["level 1", "level 2"]',
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "a", "labels": "A"}', 'labels="A": expected one path'),
        (b'{"text": "a", "labels": []}', "labels=[]: expected one path"),
        (b'{"text": "a", "labels": [[]]}', "labels=[[]]: expected one path"),
        (b'{"text": "a", "labels": ["A", 3]}', 'labels=["A", 3]: expected one path'),
        (b'{"text": "a", "labels": ["A", null]}', 'labels=["A", null]: expected one path'),
        (b'{"text": "a", "labels": ["A", " "]}', 'labels=["A", " "]: expected one path'),
        (b'{"text": "a", "labels": {"A": "B"}}', 'labels={"A": "B"}: expected one path'),
        (b'{"text": "a", "labels": null}', "labels=null: expected one path"),
        (b'{"text": "a", "label": ["A"]}', "no key 'labels', found ['label', 'text']"),
        (b'{"labels": ["A"]}', "no key 'text', found ['labels']"),
        (b'{"text": 3, "labels": ["A"]}', "text=3: expected a string"),
        (b'{"text": " ", "labels": ["A"]}', 'text=" ": expected more than white space'),
        (b'["a", ["A"]]', "expected a JSON object"),
        (b'{"text": "a", "labels": ["A"', "invalid JSON (Expecting ',' delimiter at column 29)"),
        (b'{"text": "caf\xe9", "labels": ["A"]}', "invalid UTF-8 at byte 14 of the line"),
        (b'{"text": "a", "labels": ["B", "A_B"]}', "label 'A_B' under 'B', elsewhere under 'A'; expected one"),
        (b'{"text": "a", "labels": ["A_B"]}', "label 'A_B' under 'ROOT', elsewhere under 'A'; expected one"),
        (b'{"text": "a", "labels": ["A", "A"]}', "label 'A' under 'A', elsewhere under 'ROOT'; expected one"),
        (b'{"text": "a", "labels": ["A", "A\\tC"]}', f"label 'A\\tC': {NAME}"),
        (b'{"text": "a", "labels": ["A", "A\\nC"]}', f"label 'A\\nC': {NAME}"),
        (b'{"text": "a", "labels": ["A", ""]}', 'labels=["A", ""]: expected one path'),
        (b'{"text": "a", "labels": ["ROOT"]}', f"label 'ROOT': {NAME}"),
        (b'{"text": "a", "labels": ["ROOT", "D"]}', f"label 'ROOT': {NAME}"),
        (b'{"text": "a \\ud83d", "labels": ["A"]}', 'text="\\ud83d" at character 3: half of a surrogate pair'),
        (b'{"text": "a", "labels": ["A", "\\udc00"]}', "'\\udc00' is half of a character; correct the line"),
    ],
)
def test_bad_lines_are_refused(line: bytes, message: str, tmp_path: Path) -> None:
    good = b'{"text": "a", "labels": ["A", "A_B"]}\n'
    data = amazon(tmp_path, good, good + b"\n" + line + b"\n" + good)
    refused(data, f"{tmp_path / 'amazon/raw/amazon_test.jsonl'}:3: {message}")


@pytest.mark.parametrize("half", ["train", "test"])
@pytest.mark.parametrize("name", FOLDED)
def test_one_half_of_the_lines_is_refused(name: str, half: str, tmp_path: Path) -> None:
    files = {f"{name}_{half}.jsonl": published(name, AMAZON_LABELS)[f"{name}_{half}.jsonl"]}
    other = {"train": "test", "test": "train"}[half]
    refused(
        module(KINDS[name], put(tmp_path / name, files)),
        f"{tmp_path}/{name}/raw/{name}_{half}.jsonl: expected {name}_{other}.jsonl beside it",
    )


@pytest.mark.parametrize("twice", ["train", "test"])
@pytest.mark.parametrize("name", FOLDED)
def test_plain_and_packed_lines_side_by_side_are_refused(name: str, twice: str, tmp_path: Path) -> None:
    files = {**published(name, AMAZON_LABELS), f"{name}_{twice}.jsonl.gz": ""}
    path = tmp_path / name / "raw" / f"{name}_{twice}.jsonl"
    refused(
        module(KINDS[name], put(tmp_path / name, files)), f"{path}: there is {path}.gz as well; keep one of the two"
    )


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", FOLDED)
def test_one_file_may_stand_for_both_halves(name: str, packed: bool, tmp_path: Path) -> None:
    content = "".join(published(name, AMAZON_LABELS).values()).encode()
    whole = {"all.jsonl.gz": gzip.compress(content)} if packed else {"all.jsonl": content}
    halves = prepared(module(KINDS[name], put(tmp_path / "halves", published(name, AMAZON_LABELS))))
    found = prepared(module(KINDS[name], put(tmp_path / "whole", whole)))
    assert found["all"] == halves["all"]
    assert found["edges"] == halves["edges"]
    assert found["summary"]["form"] == next(iter(whole))


def test_packed_halves_are_read(tmp_path: Path) -> None:
    files = {f"{name}.gz": gzip.compress(text.encode()) for name, text in published("bugs", AMAZON_LABELS).items()}
    found = prepared(module(BugsDataModule, put(tmp_path / "bugs", files)))
    assert found["summary"]["form"] == "bugs_train.jsonl.gz, bugs_test.jsonl.gz"
    assert len(found["all"]) == 56


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("wos", {"Data.xlsx": sheet(wos_rows()[:5])}, "5 left out: label with fewer than 10 documents"),
        (
            "bugs",
            {"linux_bugs.csv": table(bugs_rows()[:3])},
            "3 left out: named as a product with fewer than 5 documents",
        ),
        ("bugs", {"linux_bugs.csv": table([])}, "no document in linux_bugs.csv"),
        ("amazon", {"amazon_train.jsonl": "", "amazon_test.jsonl": "\n"}, "no document in amazon_train.jsonl"),
        ("bgc", bgc_files(dev=""), "(val)"),
        ("bgc", {"blurbgenrecollectionen.zip": archive(bgc_files(""))}, "(train)"),
    ],
)
def test_nothing_left_to_learn_from_is_refused(name: str, files: dict[str, Any], message: str, tmp_path: Path) -> None:
    put(tmp_path / name, files)
    refused(benchmark(name, tmp_path), f"{tmp_path / name / 'raw'}: no document in ", message)
