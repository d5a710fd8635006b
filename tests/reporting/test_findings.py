"""What a report's page says of runs, and how it draws it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from run_folders import write_predictions, write_run

from ptmt_lightning.reporting.differences import Difference
from ptmt_lightning.reporting.findings import Finding, findings
from ptmt_lightning.reporting.page import page
from ptmt_lightning.reporting.significance import Comparison
from ptmt_lightning.run_folder.finished import find_runs

RIGHT, HALF, WRONG = [["A", "AA"]], [["A"]], [["B"]]


def scored(folder: Path, right: int, seed: int, **settings: object) -> None:
    """A run that finds the path of so many of forty documents, and the beginning of the others'."""
    write_run(folder, 0.5, seed, **settings)
    documents = {f"d{i}": (RIGHT, RIGHT if i < right else HALF) for i in range(40)}
    write_predictions(folder, [("ROOT", "A"), ("A", "AA"), ("ROOT", "B")], documents)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two systems with four seeds, of each two shares of the training set, and one run on other data."""
    for seed in range(4):
        for model, right in (("ptmt", 38), ("bert", 16)):
            for share, less in ((1.0, 0), (0.25, 8)):
                name = f"{model}-{share}-{seed}"
                scored(
                    tmp_path / name,
                    right - less - seed - (seed == 3 and model == "bert"),
                    seed,
                    run__model=model,
                    dataset__train_fraction=share,
                )
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
    assert toy.reference.difference == ({}, {})
    first, *chances, costs = toy.sentences()
    lead = toy.configurations[0].mean - toy.reference.mean
    assert first == (
        f"ptmt, train_fraction 1 wins with h_f1_macro {toy.configurations[0].mean:.4f} on test: "
        f"{lead:.4f} more than bert, train_fraction 1."
    )
    texts = (
        "Had other documents been tested: ", "Had other seeds been trained, by pairs of runs with one seed: ",
        "Had both been others: ",
    )  # fmt: skip
    figures = r"\+0\.\d{4} to \+0\.\d{4} \(95 %\), p [=<] 0\.\d{3} \([=<] 0\.\d{3} by Holm of 3\)\."
    for chance, text in zip(chances, texts, strict=True):
        assert re.fullmatch(text + figures, chance)
    assert costs == "Its cost (of bert, train_fraction 1): training 2 (2) device minutes."
    assert other.sentences() == [
        "ptmt, train_fraction 1 has h_f1_macro 0.3000 on test; there is nothing to compare it with.",
        "Its cost: training 2 device minutes.",
    ]


def test_a_baseline_that_is_the_best_is_compared_with_the_next(folder: Path) -> None:
    _, toy = found(folder, "dataset=toy,model=ptmt,train_fraction=1")
    assert toy.is_asked_for
    assert toy.reference is toy.configurations[0]
    assert all(one.difference.tested["both"].difference < 0 for one in toy.configurations[1:])
    first, documents, *_ = toy.sentences()
    assert first.endswith("more than ptmt, train_fraction 0.25.")
    assert documents.startswith("Had other documents been tested: +0.")


def test_what_is_within_chance_is_not_said_to_win(tmp_path: Path) -> None:
    for seed, (ptmt, bert) in enumerate([(36, 16), (16, 32), (32, 24)]):
        scored(tmp_path / f"ptmt{seed}", ptmt, seed, run__model="ptmt")
        scored(tmp_path / f"bert{seed}", bert, seed, run__model="bert")
    [toy] = found(tmp_path)
    assert " is ahead, but within the range of chance, with " in toy.sentences()[0]


def test_a_lead_over_documents_or_seeds_alone_is_not_said_to_win(tmp_path: Path) -> None:
    for model, right in (("ptmt", 36), ("bert", 8)):
        scored(tmp_path / "one" / model, right, 0, run__model=model)
    assert (
        found(tmp_path / "one")[0]
        .sentences()[0]
        .startswith("ptmt is ahead by a test over documents, while seeds are not tested, with h_f1_macro ")
    )
    for seed in (0, 1, 2):
        for model, score in (("ptmt", 0.6), ("bert", 0.5)):
            write_run(
                tmp_path / "two" / f"{model}{seed}", score + 0.001 * seed * (model == "bert"), seed, run__model=model
            )
    assert (
        found(tmp_path / "two")[0]
        .sentences()[0]
        .startswith("ptmt is ahead by a test over seeds, while documents are not tested, with h_f1_macro ")
    )


def test_a_lead_without_predictions_and_seeds_is_not_tested(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for model, score in (("ptmt", 0.6), ("bert", 0.5)):
        write_run(tmp_path / model, score, run__model=model)
    [toy] = found(tmp_path)
    assert toy.sentences()[:2] == [
        "ptmt is ahead, which is not tested, with h_f1_macro 0.6000 on test: 0.1000 more than bert.",
        "What other seeds would give is not known: one side has a single seed.",
    ]
    assert caplog.messages == [
        f"not tested over documents; both: {tmp_path}/ptmt lacks taxonomy.json, as a run with test=true leaves (ptmt)",
        "not tested over seeds, paired; seeds, Welch: one side has a single seed (ptmt)",
    ]


def test_a_lead_over_documents_and_seeds_that_holm_does_not_leave_is_not_said_to_win() -> None:
    held, lost = (Comparison(0.1, 0.05, 0.15, 0.01, p_holm, 6) for p_holm in (0.04, 0.06))
    tests = {"documents": held, "seeds": held, "welch": lost, "both": held}
    assert Difference(tests, {}).holds(1)
    assert not Difference(tests, {}).holds(-1)
    assert not Difference(tests | {"both": lost}, {}).holds(1)
    assert not Difference(tests | {"seeds": lost}, {}).holds(1)
    assert not Difference(tests | {"seeds": held._replace(difference=-0.1)}, {}).holds(1)  # of the shared ones
    del tests["seeds"]  # then Welch's counts
    assert not Difference(tests, {}).holds(1)


def test_p_values_are_corrected_for_all_data_sets_of_a_report(folder: Path) -> None:
    for model, right in (("hbgl", 30), ("bert", 20)):
        scored(folder / model, right, 0, run__model=model, dataset__name="more")
    differences = [one.difference for part in found(folder) for one in part.configurations]
    compared = [difference.tested["documents"] for difference in differences if difference.tested]
    assert [one.num_comparisons for one in compared] == [4] * 4
    smallest = min(compared, key=lambda one: one.p)
    assert smallest.p_holm == pytest.approx(4 * smallest.p)


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
