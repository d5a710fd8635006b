"""The page in a real browser, where there is one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import TOY_DOCUMENTS
from duplicate_names import TAXONOMY
from playwright.sync_api import Page, expect, sync_playwright
from served import Server, served

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("chromium") is None, reason="needs the browser chromium"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture
def page(server: Server) -> Iterator[Page]:
    with opened(server) as page:
        yield page


@contextmanager
def opened(server: Server) -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("requestfailed", lambda request: problems.append(request.url))
        page.goto(server.url)
        yield page
        browser.close()
        assert problems == []


def test_a_text_lights_up_its_labels(page: Page, server: Server) -> None:
    text = str(TOY_DOCUMENTS[2]["text"])
    expect(page.locator("[data-label]")).to_have_count(11)
    page.get_by_label("Text").fill(text)
    page.get_by_role("button", name="Classify").click()
    paths = server.classifier.predict(text)
    assert paths
    expect(page.get_by_role("status")).to_have_text("; ".join(" › ".join(path.labels) for path in paths))  # noqa: RUF001
    lit = {label for path in paths for label in path.labels}
    assert set(page.locator(".predicted .name").all_text_contents()) == lit
    probabilities = server.classifier.probabilities([text])[0].tolist()
    for label, probability in zip(server.classifier.taxonomy.names, probabilities, strict=True):
        assert float(page.locator(f"[data-label={label}] .p").text_content() or "") == pytest.approx(
            probability, abs=1e-3
        )


def test_labels_of_one_name_light_up_each_for_itself(tmp_path: Path) -> None:
    text = "Battery"
    with served(tmp_path, taxonomy=TAXONOMY) as server, opened(server) as page:
        expect(page.locator("[data-label]")).to_have_count(len(TAXONOMY))
        page.get_by_label("Text").fill(text)
        page.get_by_role("button", name="Classify").click()
        paths = [TAXONOMY.path_nodes(path.labels) for path in server.classifier.predict(text)]
        expect(page.get_by_role("status")).to_have_text(re.compile("."))
        expect(page.get_by_role("status")).not_to_have_text("…")
        lit = {row.get_attribute("data-label") for row in page.locator(".predicted").all()}
        assert lit == {TAXONOMY.names[node] for path in paths for node in path}
        for node, probability in enumerate(server.classifier.probabilities([text])[0].tolist()):
            row = page.locator(f'[data-label="{TAXONOMY.names[node]}"]')
            assert row.locator(".name").text_content() == TAXONOMY.labels[node]
            assert float(row.locator(".p").text_content() or "") == pytest.approx(probability, abs=1e-3)


def test_what_the_server_refuses_is_shown(page: Page, server: Server) -> None:
    page.get_by_label("Text").evaluate("box => { box.removeAttribute('maxlength'); box.value = 'a'.repeat(100001) }")
    page.get_by_role("button", name="Classify").click()
    message = page.get_by_role("status")
    expect(message).to_have_class("error")
    expect(message).to_have_text(re.compile("at most 100000 characters"))


def test_text_is_shown_as_text(page: Page) -> None:
    page.get_by_label("Text").fill("<img src=x onerror=alert(1)>")
    page.get_by_role("button", name="Classify").click()
    expect(page.get_by_role("button", name="Classify")).to_be_enabled()
    assert page.locator("img").count() == 0
