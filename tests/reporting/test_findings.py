"""What a report's page says of runs, and how it draws it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from run_folders import write_predictions, write_run

from ptmt_lightning.reporting.findings import Finding, findings
from ptmt_lightning.reporting.page import page
from ptmt_lightning.run_folder.finished import find_runs

RIGHT, HALF, WRONG = [["A", "AA"]], [["A"]], [["B"]]


def scored(folder: Path, right: int, seed: int, **settings: object) -> None:
    """A run that finds the path of so many of ten documents, and the beginning of the others'."""
    write_run(folder, 0.5, seed, **settings)
    documents = {f"d{i}": (RIGHT, RIGHT if i < right else HALF) for i in range(10)}
    write_predictions(folder, [("ROOT", "A"), ("A", "AA"), ("ROOT", "B")], documents)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two systems with two seeds, of each two shares of the training set, and one run on other data."""
    for seed in (0, 1):
        for model, right in (("ptmt", 9), ("bert", 3)):
            for share, less in ((1.0, 0), (0.25, 2)):
                name = f"{model}-{share}-{seed}"
                scored(tmp_path / name, right - less - seed, seed, run__model=model, dataset__train_fraction=share)
    write_run(tmp_path / "other", 0.3, dataset__name="other")
    return tmp_path


def found(folder: Path, baseline: str | None = None) -> list[Finding]:
    return findings(find_runs([folder])[0], metric="h_f1_macro", split="test", baseline=baseline)


def test_configurations_are_named_by_what_they_set(folder: Path) -> None:
    other, toy = found(folder)
    assert (other.dataset, toy.dataset) == ("other", "toy")
    assert [one.name for one in toy.configurations] == [
        "ptmt, train_fraction 1", "ptmt, train_fraction 0.25", "bert, train_fraction 1", "bert, train_fraction 0.25"
    ]  # fmt: skip
    assert [one.system for one in toy.configurations] == ["ptmt", "ptmt", "bert", "bert"]


def test_the_winner_is_compared_with_the_best_of_another_system(folder: Path) -> None:
    other, toy = found(folder)
    assert toy.reference.name == "bert, train_fraction 1"
    assert toy.reference.difference == (None, None)
    first, *chances, costs = toy.sentences()
    lead = toy.configurations[0].mean - toy.reference.mean
    assert first == (
        f"ptmt, train_fraction 1 wins with h_f1_macro {toy.configurations[0].mean:.4f} on test: "
        f"{lead:.4f} more than bert, train_fraction 1."
    )
    assert re.fullmatch(
        r"Had other documents been tested: \+0\.\d{4} to \+0\.\d{4} \(95 %\), p = 0\.\d{3} over documents\.", chances[0]
    )
    assert re.fullmatch(
        r"Had other seeds been trained: \+0\.\d{4} to \+0\.\d{4} \(95 %\), p [=<] 0\.\d{3} over 2 seeds\.", chances[1]
    )
    assert costs == "Its cost (of bert, train_fraction 1): training 2 (2) device minutes."
    assert other.sentences() == [
        "ptmt, train_fraction 1 has h_f1_macro 0.3000 on test; there is nothing to compare it with.",
        "Its cost: training 2 device minutes.",
    ]


def test_a_baseline_that_is_the_best_is_compared_with_the_next(folder: Path) -> None:
    _, toy = found(folder, "dataset=toy,model=ptmt,train_fraction=1")
    assert toy.is_asked_for
    assert toy.reference is toy.configurations[0]
    assert all(one.difference.documents.difference < 0 for one in toy.configurations[1:] if one.difference.documents)
    first, documents, *_ = toy.sentences()
    assert first.endswith("more than ptmt, train_fraction 0.25.")
    assert documents.startswith("Had other documents been tested: +0.")


def test_what_is_within_chance_is_not_said_to_win(tmp_path: Path) -> None:
    for seed, (ptmt, bert) in enumerate([(9, 4), (4, 8), (8, 6)]):
        scored(tmp_path / f"ptmt{seed}", ptmt, seed, run__model="ptmt")
        scored(tmp_path / f"bert{seed}", bert, seed, run__model="bert")
    [toy] = found(tmp_path)
    assert " is ahead, but within the range of chance, with " in toy.sentences()[0]


def test_a_lead_over_documents_or_seeds_alone_is_not_said_to_win(tmp_path: Path) -> None:
    for model, right in (("ptmt", 9), ("bert", 2)):
        scored(tmp_path / "one" / model, right, 0, run__model=model)
    assert (
        found(tmp_path / "one")[0]
        .sentences()[0]
        .startswith("ptmt is ahead beyond the chance of documents, while that of seeds is not tested, with h_f1_macro ")
    )
    for seed in (0, 1, 2):
        for model, score in (("ptmt", 0.6), ("bert", 0.5)):
            write_run(
                tmp_path / "two" / f"{model}{seed}", score + 0.001 * seed * (model == "bert"), seed, run__model=model
            )
    assert (
        found(tmp_path / "two")[0]
        .sentences()[0]
        .startswith("ptmt is ahead beyond the chance of seeds, while that of documents is not tested, with h_f1_macro ")
    )


def test_a_lead_without_predictions_and_seeds_is_not_tested(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for model, score in (("ptmt", 0.6), ("bert", 0.5)):
        write_run(tmp_path / model, score, run__model=model)
    [toy] = found(tmp_path)
    assert toy.sentences()[:2] == [
        "ptmt is ahead, which is not tested, with h_f1_macro 0.6000 on test: 0.1000 more than bert.",
        "One seed: what other seeds would give is not known.",
    ]
    assert caplog.messages == [
        f"nothing is compared with bert: {tmp_path}/bert lacks taxonomy.json, as a run with test=true leaves"
    ]


def test_the_page_holds_names_as_text_and_its_pictures_have_words(folder: Path) -> None:
    result = json.loads((folder / "other/result.json").read_text()) | {"dataset": "</script><b>$x$"}
    (folder / "other/result.json").write_text(json.dumps(result))
    made = page(find_runs([folder])[0], metrics=["h_f1_macro"], split="test")
    assert "<b>$x$" not in made
    assert made.count("</script>") == 2
    assert made.count("<figure>") == made.count('<svg role="img" aria-label="') >= 4
    assert "mathdefault" not in made  # numbers on axes are written out
    assert "var(--c0)" in made
    assert not re.search(r'(?:src|href)="(?!#)', made.replace('xlink:href="#', ""))  # nothing from elsewhere
    forest = re.search(r'aria-label="(toy: Differences[^"]*)"', made)
    assert forest
    assert "Differences in h_f1_macro to bert, train_fraction 1, with 95 % intervals" in forest[1]
