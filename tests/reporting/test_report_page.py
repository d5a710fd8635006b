"""The report's page in a real browser, where there is one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import axe_playwright_python
import pandas as pd
import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright
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
    yield from opened(report)


def opened(report: Path, **context: Any) -> Iterator[Page]:
    """The page in a browser; at the end nothing was asked of a network, and no script failed."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(**({"viewport": {"width": 1280, "height": 900}} | context))
        problems: list[str] = []
        asked: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        yield page
        browser.close()
        assert problems == []
        assert asked == [report.as_uri()]


def runs(page: Page) -> Locator:
    """The names in the table of runs that are shown, from top to bottom."""
    return page.locator("#all tbody tr:visible th")


def test_the_finding_comes_first(page: Page) -> None:
    expect(page.locator("h1")).to_have_text("2 systems on 1 data set, 6 runs")
    expect(page.locator(".finding b")).to_have_text(
        "ptmt, margin 0.1 is ahead, but within the range of chance, with h_f1_macro 0.8500 on test: "
        "0.2000 more than bert, margin 0.05."
    )
    expect(page.get_by_text("folder left out")).to_have_text("1 folder left out")


def test_words_leave_some_runs_and_a_heading_sorts_them(page: Page) -> None:
    page.get_by_label("Words that runs must have").fill("PTMT 0.1")
    expect(runs(page)).to_have_text(["a<b>-0", "a<b>-1"])
    expect(page.get_by_role("status")).to_have_text("2 of 6 runs")
    page.get_by_label("Words that runs must have").fill("")
    expect(runs(page)).to_have_count(6)
    button = page.get_by_role("button", name="h_f1_macro")
    button.focus()
    page.keyboard.press("Enter")
    expect(runs(page)).to_have_text(["a<b>-0", "a<b>-1", "b-0", "b-1", "bert-0", "bert-1"])
    expect(page.locator("#all th[aria-sort=descending]")).to_contain_text("h_f1_macro")
    page.keyboard.press("Enter")
    expect(runs(page)).to_have_text(["bert-1", "b-1", "bert-0", "a<b>-1", "b-0", "a<b>-0"])
    page.get_by_role("button", name="size, million parameters").click()  # known of one run alone
    expect(runs(page).first).to_have_text("bert-0")


def test_two_runs_are_compared_by_settings_and_labels(page: Page) -> None:
    best = page.locator("#compared table").first.locator("tbody tr")
    expect(best).to_have_text(["loss.margin0.10.05"])  # at first the best two configurations
    page.get_by_label("first run").select_option(label="b-1 (ptmt, margin 0.05)")
    page.get_by_label("second run").select_option(label="bert-0 (bert, margin 0.05)")
    settings, labels = page.locator("#compared table").all()
    expect(settings.locator("tbody tr")).to_have_text(["run.modelptmtbert"])
    cells = [row.locator("th, td").all_inner_texts() for row in labels.locator("tbody tr").all()]
    assert sorted(cells) == [["007", "1", "1", "0"], ["NA", "0", "0", "0"]]  # those that both know, by name


def test_it_is_one_column_on_a_phone(report: Path) -> None:
    for page in opened(report, viewport={"width": 360, "height": 700}):
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        lefts = {round(box["x"]) for figure in page.locator("figure").all() if (box := figure.bounding_box())}
        assert len(lefts) == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_theme_and_has_no_serious_barrier(report: Path, scheme: str) -> None:
    axe = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    for page in opened(report, color_scheme=scheme, bypass_csp=True):
        colours = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor,"
            " getComputedStyle(document.querySelector('figure svg text')).fill]"
        )
        dark, light = [(20, 24, 28), (255, 255, 255)], [(230, 233, 236), (27, 31, 36)]
        expected = (dark[0], light[0]) if scheme == "dark" else (dark[1], light[1])
        assert colours == ["rgb({}, {}, {})".format(*colour) for colour in expected]
        page.evaluate(axe)
        found = page.evaluate("axe.run()")
        assert [one["id"] for one in found["violations"] if one["impact"] in ("serious", "critical")] == []
        assert len(found["passes"]) > 20


def test_it_can_be_read_from_the_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to what was found")).to_be_in_viewport()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "found"
    assert all(page.get_by_role("img").evaluate_all("all => all.map(one => one.ariaLabel.length > 30)"))
    assert page.locator("table").count() == page.locator("table > caption").count() == 6
    assert page.locator("th:not([scope])").count() == 0


def test_in_print_tables_are_whole_and_controls_are_gone(page: Page) -> None:
    page.emulate_media(media="print")
    expect(page.get_by_label("Words that runs must have")).to_be_hidden()
    expect(page.locator("#all")).to_be_visible()
    assert page.locator("#runs .scroll").evaluate("one => getComputedStyle(one).overflowY") == "visible"
