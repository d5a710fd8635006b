"""Explanations over HTTP and in the page: those of the model, with the words marked."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import TOY_DOCUMENTS
from playwright.sync_api import expect, sync_playwright
from served import Server, served

from ptmt_lightning.inference.explain import Explainer

pytestmark = pytest.mark.slow  # a server, and a browser
TEXT = str(TOY_DOCUMENTS[2]["text"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("served")) as server:
        yield server


def explained(server: Server, **content: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/explain", json=content, timeout=30)


@pytest.mark.parametrize("labels", [None, [["A"], ["B", "BA"]]])
def test_the_server_explains_as_the_model_does(server: Server, labels: Any) -> None:
    found = explained(server, text=TEXT, labels=labels).raise_for_status().json()["labels"]
    expected = Explainer(server.classifier).explain(TEXT, labels)
    assert [label["path"] for label in found] == [list(label.path) for label in expected] != []
    for label, own in zip(found, expected, strict=True):
        assert [word["word"] for word in label["words"]] == TEXT.split()
        assert [word["value"] for word in label["words"]] == pytest.approx([w.value for w in own.words], abs=1e-3)


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        ({"text": TEXT, "labels": [["Z"]]}, 404, "label 'Z' is not in the taxonomy"),
        ({"text": TEXT, "labels": [["A"]] * 21}, 422, "labels: List should have at most 20 items"),
        ({}, 422, "text: Field required"),
    ],
)
def test_what_can_not_be_explained_is_refused(server: Server, content: Any, status: int, reason: str) -> None:
    answer = explained(server, **content)
    assert answer.status_code == status
    assert reason in answer.json()["detail"]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs the browser chromium")
def test_the_page_marks_the_words_of_each_predicted_label(server: Server) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.goto(server.url)
        page.get_by_label("Text", exact=True).fill(TEXT)
        page.get_by_role("button", name="Predict").click()
        page.get_by_role("button", name="Which words?").click()
        titles = page.locator(".why h3")
        expected = Explainer(server.classifier).explain(TEXT)
        expect(titles).to_have_count(len(expected))
        for label, text in zip(sorted(expected), sorted(titles.all_text_contents()), strict=True):
            assert text == " › ".join(label.path) + f" {label.probability:.3f}"  # noqa: RUF001
        marked = page.locator(".why .marked")
        assert marked.first.text_content() == TEXT
        assert page.locator(".why mark").count() > 0
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        assert problems == []
