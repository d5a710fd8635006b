"""The report's page in a real browser, where there is one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Page, expect, sync_playwright
from run_folders import write_predictions, write_run

from ptmt_lightning.cli import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="needs the browser chromium"),
]


def write_curves(folder: Path, steps: int) -> None:
    """Losses at each step, one validation at the end."""
    frame = pd.DataFrame({"step": range(steps), "train/loss": [1 / (step + 1) for step in range(steps)]})
    frame.loc[steps - 1, "val/h_f1_macro"] = 0.5
    frame.to_csv(folder / "metrics.csv", index=False)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of six runs: two margins and a bert with two seeds each; and a folder that is none."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        for name, score, settings in (
            ("a<b>", 0.9, {"loss__margin": 0.1}), ("b", 0.8, {}), ("bert", 0.7, {"run__model": "bert"}),
        ):  # fmt: skip
            run = write_run(folder / f"{name}-{seed}", score - seed / 10, seed, **settings)
            labels = ["007", "NA"] if name == "bert" else ["NA", "007", "7"]
            found = [["007"]] if name == "bert" else [["007"], ["7"]]
            write_predictions(run, [("ROOT", label) for label in labels], {"d": ([["007"], ["NA"]], found)})
            scores = dict.fromkeys(("h_f1_macro", "h_f1_micro", "h_auprc"), score - seed / 10)
            result = json.loads((run / "result.json").read_text())
            (run / "result.json").write_text(json.dumps(result | {"test": scores}))
            write_curves(run, 1000)
    result = json.loads((folder / "bert-0/result.json").read_text())
    result["seconds"]["fit"], result["num_parameters"] = 6000, 22_000_000
    (folder / "bert-0/result.json").write_text(json.dumps(result))
    (folder / "broken").mkdir()
    (folder / "broken/result.json").write_text("{")
    main(["report", str(folder), "--html", str(folder / "page.html")])
    return folder / "page.html"


@pytest.fixture
def page(report: Path) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 2600})
        problems: list[str] = []
        asked: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        expect(runs(page)).to_have_count(6)
        yield page
        browser.close()
        assert problems == []
        assert asked == [report.as_uri()]  # no network


def runs(page: Page):  # type: ignore[no-untyped-def]
    """The names in the table of runs, from top to bottom."""
    return page.locator(".slick-row:has(.slick-cell.l9) .slick-cell.l1")


def test_configurations_and_what_was_left_out(page: Page) -> None:
    rows = page.locator("table").first.locator("tr")
    expect(rows.nth(0)).to_have_text("modelmarginrunsh_f1_macroh_f1_microh_auprcminutes")
    expect(rows.nth(1)).to_have_text("ptmt0.120.8500 ± 0.07070.8500 ± 0.07070.8500 ± 0.07072.0")
    expect(page.locator("summary")).to_have_text("1 folders left out")


def test_words_leave_some_runs_and_a_heading_sorts_them(page: Page) -> None:
    page.get_by_placeholder("words that runs must have").fill("PTMT 0.1")
    expect(runs(page)).to_have_text(["a<b>-0", "a<b>-1"])
    page.get_by_placeholder("words that runs must have").fill("")
    expect(runs(page)).to_have_count(6)
    page.locator(".slick-header-column", has_text="h_f1_macro").click()
    expect(runs(page)).to_have_text(["bert-1", "bert-0", "b-1", "a<b>-1", "b-0", "a<b>-0"])


def test_the_best_two_configurations_are_compared_at_first(page: Page) -> None:
    differences = page.locator("table", has_text="loss.margin").last
    expect(differences.locator("tr")).to_have_text(["a<b>-0b-0", "loss.margin0.10.05"])


def test_two_picked_runs_are_compared_by_settings_and_labels(page: Page) -> None:
    runs(page).filter(has_text="b-1").first.click()
    expect(page.get_by_text("Pick two runs.")).to_be_visible()
    runs(page).filter(has_text="bert-0").click(modifiers=["Control"])
    table = page.locator("table", has_text="run.model").last
    expect(table.locator("tr")).to_contain_text(["bert-0", "run.model"])
    labels = page.locator(".slick-row:not(:has(.slick-cell.l9))")
    expect(labels).to_have_count(2)  # of the three those that both know, by name
    cells = {line.split("\n")[1]: line.split("\n")[2:] for line in labels.all_inner_texts()}
    assert cells == {"NA": ["0", "0", "0"], "007": ["1", "1", "0"]}


def test_quality_is_drawn_over_the_chosen_cost(page: Page) -> None:
    drawn = "Bokeh.documents[0].get_model_by_name('runs').data"
    costs = page.locator("select")
    for label, column in (("parameters, millions", "parameters"), ("training, device minutes", "fit_minutes")):
        costs.select_option(label=label)
        assert page.evaluate(f"[...{drawn}.cost]") == page.evaluate(f"[...{drawn}.{column}]")
    assert 100 in page.evaluate(f"[...{drawn}.cost]")
