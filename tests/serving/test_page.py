"""The page in a real browser, where there is one."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import TOY_DOCUMENTS
from duplicate_names import TAXONOMY
from page_steps import answer, labels_of, move, names, predict, predicted, write
from playwright.sync_api import Browser, Page, expect, sync_playwright
from served import Server, processes_of, served

from ptmt_lightning.losses import CrossEntropy
from ptmt_lightning.taxonomy import Taxonomy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="needs the browser chromium"),
]

TEXT = str(TOY_DOCUMENTS[2]["text"])
HOSTILE = "<img src=x onerror=alert(1)>"
# A DAG: "both" is below three labels, and on level 3 though one of them is on level 1.
STRANGE_EDGES = [
    ("ROOT", HOSTILE), ("ROOT", "עברית"), (HOSTILE, "__proto__"), ("עברית", "a b"),
    ("__proto__", "both"), ("a b", "both"), ("עברית", "both"), *((HOSTILE, f"n{number}") for number in range(30)),
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("strange"), taxonomy=Taxonomy(STRANGE_EDGES)) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])


@pytest.fixture
def problems() -> list[str]:
    """What the browser complains of, its policy's refusals among it; a test takes out what it expects."""
    return []


@pytest.fixture
def page(browser: Browser, server: Server, problems: list[str]) -> Iterator[Page]:
    with browser.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.on("requestfailed", lambda request: problems.append(request.url))
        page.goto(server.url)
        expect(page.locator("#model")).not_to_be_empty()  # has all that it asks for at first
        yield page
        assert problems == []


def test_bars_show_all_probabilities(page: Page, server: Server) -> None:
    predict(page, TEXT, names(answer(server, texts=[TEXT])))
    assert predicted(page) == labels_of(answer(server, texts=[TEXT])) != set()
    page.get_by_role("button", name="Show all 11 labels").click()
    expect(page.locator("[data-label]")).to_have_count(11)
    probabilities = server.classifier.probabilities([TEXT])[0].tolist()
    for label, probability in zip(server.classifier.taxonomy.names, probabilities, strict=True):
        row = page.locator(f"[data-label={label}]")
        assert float(row.locator(".p").text_content() or "") == pytest.approx(probability, abs=1e-3)
        bar, fill, mark = (row.locator(part).bounding_box() for part in (".bar", ".fill", ".threshold"))
        assert bar
        assert fill
        assert mark
        assert fill["width"] / bar["width"] == pytest.approx(probability, abs=0.01)
        assert (mark["x"] + 1 - bar["x"]) / bar["width"] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("thresholds", [[0, 0, 0], [0.3, 0.6, 0.2], [0.9, 0.1, 0.1], [0.45, 0.45, 0.45], [1, 0, 0]])
def test_moved_thresholds_decide_as_the_server_does_without_asking_it(
    page: Page, server: Server, thresholds: list[float]
) -> None:
    predict(page, TEXT)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for level, threshold in enumerate(thresholds, start=1):
        move(page, level, threshold)
    paths = answer(server, texts=[TEXT], threshold=thresholds)
    expect(page.get_by_role("status")).to_have_text(names(paths) or "No label is probable enough.")
    assert predicted(page) == labels_of(paths)
    unpruned = labels_of(answer(server, texts=[TEXT], threshold=thresholds, prune=False))
    dropped = {row.get_attribute("data-label") for row in page.locator(".dropped").all()}
    assert dropped == unpruned - labels_of(paths)
    assert asked == []
    page.get_by_role("button", name="Back to the model's own").click()
    expect(page.get_by_role("status")).to_have_text(names(answer(server, texts=[TEXT])))


def test_without_pruning_no_label_is_dropped(page: Page, server: Server) -> None:
    model = httpx.get(f"{server.url}/info").json()
    model["model"]["prune"] = False
    page.route("**/info", lambda route: route.fulfill(json=model))
    page.goto(server.url)
    move(page, 1, 1)
    predict(page, TEXT)
    assert predicted(page) == labels_of(answer(server, texts=[TEXT], threshold=[1, 0.5, 0.5], prune=False))


def test_a_model_without_thresholds_decides_itself(page: Page, tmp_path: Path) -> None:
    with served(tmp_path, label_loss=CrossEntropy()) as server:
        assert httpx.get(f"{server.url}/info").json()["model"]["thresholds"] is None
        page.goto(server.url)
        for document in TOY_DOCUMENTS:
            text = str(document["text"])
            predict(page, text, names(answer(server, texts=[text])) or "No label is probable enough.")
            assert predicted(page) == labels_of(answer(server, texts=[text]))
        expect(page.locator("#thresholds")).to_be_hidden()
        expect(page.locator(".threshold")).to_have_count(0)


def test_a_threshold_is_moved_by_keys_and_said(page: Page) -> None:
    predict(page, TEXT)
    page.get_by_label("Level 2").press("ArrowRight")
    expect(page.get_by_label("Level 2")).to_have_attribute("aria-valuetext", "0.51")
    expect(page.locator(".value").nth(1)).to_have_text("0.51")


@pytest.mark.parametrize("keys", ["Control+Enter", "Meta+Enter"])
def test_keys_predict(page: Page, server: Server, keys: str) -> None:
    write(page, TEXT)
    page.keyboard.press(keys)
    expect(page.get_by_role("status")).to_have_text(names(answer(server, texts=[TEXT])))


def test_a_link_holds_texts_that_no_log_sees(page: Page, browser: Browser, server: Server) -> None:
    text = "p q p q r &text=x #+%\nkäse 東京 🎈\n\nעברית"  # noqa: RUF001
    page.get_by_label("texts with blank lines between").check()
    write(page, text)
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_role("status")).to_have_text("Link copied.")
    link = page.evaluate("navigator.clipboard.readText()")
    assert page.url == link
    with browser.new_context() as context:
        other = context.new_page()
        other.goto(link)
        expect(other.get_by_role("status")).to_have_text(re.compile("2 texts: "))
        assert other.get_by_label("Text", exact=True).input_value() == text
        other.goto(link.partition("#")[0] + "#text=" + quote("m n\no"))  # a page that is already open
        expect(other.get_by_role("status")).to_have_text(names(answer(server, texts=["m n\no"])))
        expect(other.get_by_label("one text")).to_be_checked()
        expect(other.locator(".card")).to_have_count(1)
    assert "text=" not in server.log.read_text()


def test_several_texts_have_a_card_each(page: Page, server: Server) -> None:
    page.get_by_label("a text on each line").check()
    texts = [str(document["text"]) for document in TOY_DOCUMENTS]
    write(page, "\n\n".join([*texts, "  "]))
    expect(page.locator("#count")).to_have_text("6 texts, 38 characters")
    page.get_by_role("button", name="Predict").click()
    cards = page.locator(".card")
    expect(cards).to_have_count(6)
    for card, text in zip(cards.all(), texts, strict=True):
        paths = answer(server, texts=[text])
        expect(card.get_by_role("heading")).to_have_text(text)
        assert card.locator(".paths > span").all_text_contents() == [names([path]) for path in paths]
        if card.get_attribute("open") is None:
            card.locator("summary").click()
        expect(card.locator(".predicted")).to_have_count(len(labels_of(paths)))
    page.get_by_label("texts with blank lines between").check()
    write(page, "m n\no\n \nx y z\n")
    page.get_by_role("button", name="Predict").click()
    expect(cards.get_by_role("heading")).to_have_text(["m n\no", "x y z"])


@pytest.mark.parametrize(
    ("text", "message"),
    [("a" * 100_001, "at most 100000 characters"), ("é" * 600_000, "more than 1048576 bytes; split it"),
     (" \n", "Write a text first.")],
)  # fmt: skip
def test_what_is_refused_is_said(page: Page, problems: list[str], text: str, message: str) -> None:
    write(page, text)
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("status")).to_have_class("error")
    expect(page.get_by_role("status")).to_have_text(re.compile(message))
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
    problems[:] = [problem for problem in problems if "status of 4" not in problem]


def test_offline_is_said_and_tried_again(page: Page, server: Server, problems: list[str]) -> None:
    page.context.set_offline(True)
    write(page, TEXT)
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("status")).to_have_text("You are offline.")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("status")).to_have_text(names(answer(server, texts=[TEXT])))
    expect(page.get_by_role("button", name="Try again")).to_be_hidden()
    problems[:] = [p for p in problems if "ERR_INTERNET_DISCONNECTED" not in p and not p.endswith("/predict")]


def test_no_answer_is_said(page: Page, server: Server, problems: list[str]) -> None:
    page.clock.install()
    page.goto(server.url)
    expect(page.get_by_role("status")).to_have_text("")
    page.route("**/predict", lambda route: None)
    write(page, TEXT)
    with page.expect_request("**/predict"):
        page.get_by_role("button", name="Predict").click()
    page.clock.fast_forward(19_000)
    expect(page.get_by_role("status")).to_have_text("Asking the server …")
    page.clock.fast_forward(2_000)
    expect(page.get_by_role("status")).to_have_text("The server has not answered within 20 seconds.")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    problems[:] = [problem for problem in problems if not problem.endswith("/predict")]


def test_a_server_that_has_no_time_is_tried_again(page: Page, server: Server, problems: list[str]) -> None:
    page.route("**/predict", lambda route: route.fulfill(status=503, json={"detail": "the server is busy"}), times=1)
    predict(page, TEXT, "the server is busy")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("status")).to_have_text(names(answer(server, texts=[TEXT])))
    problems[:] = [problem for problem in problems if "status of 503" not in problem]


def test_texts_are_shown_as_text(page: Page) -> None:
    predict(page, HOSTILE)
    expect(page.locator(".card").get_by_role("heading")).to_have_text(HOSTILE)
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1000])
def test_all_can_use_it(page: Page, problems: list[str], theme: Any, width: int) -> None:
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 800})
    predict(page, TEXT)
    move(page, 1, 0.97)  # so that labels are dropped
    page.get_by_role("button", name="Show all 11 labels").click()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    write(page, "")
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("status")).to_have_class("error")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    background = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(background) < 60) == (theme == "dark")


def test_strange_labels_and_several_parents(page: Page, strange: Server) -> None:
    page.goto(strange.url)
    expect(page.locator("#model")).to_contain_text("35 labels on 3 levels (2 / 32 / 1)")
    for thresholds in ([0.5, 0.5, 0.5], [1, 0, 0], [0, 1, 0], [0, 0, 0], [0.5, 0.9, 0]):
        for level, threshold in enumerate(thresholds, start=1):
            move(page, level, threshold)
        predict(page, TEXT)
        assert predicted(page) == labels_of(answer(strange, texts=[TEXT], threshold=thresholds))
    page.get_by_role("button", name="Show all 35 labels").click()
    rows = page.locator("[data-label]")
    assert sorted(rows.locator(".name > bdi").all_text_contents()) == sorted(strange.classifier.taxonomy.names)
    expect(page.locator("[data-label=both]")).to_contain_text(re.compile("also in .*, "))
    assert page.locator("img").count() == 0


def test_labels_that_are_not_known_are_asked_for(page: Page, strange: Server) -> None:
    """As of a taxonomy of 30,000 labels, of which a page can't ask for all."""
    source = httpx.get(strange.url).text.replace("ALL = 20_000, SOME = 20, MOST = 100", "ALL = 1, SOME = 3, MOST = 8")
    page.route(f"{strange.url}/", lambda route: route.fulfill(body=source, content_type="text/html"))
    page.goto(strange.url)
    move(page, 1, 0)
    move(page, 2, 1)
    predict(page, TEXT)
    assert page.get_by_role("button", name="Show all").count() == 0
    probabilities = sorted(strange.classifier.probabilities([TEXT])[0, 2:34].tolist(), reverse=True)
    threshold = round((probabilities[5] + probabilities[6]) / 2, 2)
    note = page.get_by_text("only the 8 most probable labels are shown")
    with page.expect_request("**/predict", timeout=5000):
        move(page, 2, threshold)
    expect(page.locator(".predicted")).to_have_count(
        len(labels_of(answer(strange, texts=[TEXT], threshold=[0, threshold, 0.5])))
    )
    expect(note).to_be_hidden()
    with page.expect_request("**/predict", timeout=5000):
        move(page, 2, 0)
    expect(note).to_be_visible()
    assert len(predicted(page)) <= 2 + 8 + 1


def test_a_server_that_has_ended_is_said(page: Page, strange: Server, problems: list[str]) -> None:
    """The last of its server."""
    page.goto(strange.url)
    expect(page.get_by_role("status")).to_have_text("")
    for pid in processes_of(strange.process.pid):
        os.kill(pid, signal.SIGKILL)
    predict(page, TEXT, "The server can't be reached. Is it still running?")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    problems[:] = [p for p in problems if "ERR_CONNECTION" not in p and not p.endswith("/predict")]


def test_labels_of_one_name_are_shown_each_for_itself(tmp_path: Path, browser: Browser) -> None:
    with served(tmp_path, taxonomy=TAXONOMY) as server, browser.new_context() as context:
        page = context.new_page()
        page.goto(server.url)
        predict(page, "Battery")
        page.get_by_role("button", name="Show all").click()
        paths = [TAXONOMY.path_nodes(path["path"]) for path in answer(server, texts=["Battery"])]
        assert predicted(page) == {TAXONOMY.names[node] for path in paths for node in path}
        for node, probability in enumerate(server.classifier.probabilities(["Battery"])[0].tolist()):
            row = page.locator(f'[data-label="{TAXONOMY.names[node]}"]')
            assert row.locator(".name bdi").first.text_content() == TAXONOMY.labels[node]
            assert float(row.locator(".p").text_content() or "") == pytest.approx(probability, abs=1e-3)


def test_a_model_without_thresholds_shows_what_the_server_predicts(tmp_path: Path, browser: Browser) -> None:
    with served(tmp_path, decoding="best_path") as server, browser.new_context() as context:
        page = context.new_page()
        page.goto(server.url)
        predict(page, "m n o")
        assert predicted(page) == labels_of(answer(server, texts=["m n o"]))
        expect(page.locator("#thresholds")).to_be_hidden()
