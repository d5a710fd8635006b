"""What a person does on the page, and what the server answers to the same."""

from __future__ import annotations

import re
from typing import Any

import httpx
from playwright.sync_api import Page, expect
from served import Server


def write(page: Page, text: str) -> None:
    page.get_by_label("Text", exact=True).fill(text)


def predict(page: Page, text: str, paths: str | re.Pattern[str] = re.compile(r"[^…]$")) -> None:
    write(page, text)
    page.get_by_role("button", name="Predict").click()
    expect(page.get_by_role("status")).to_have_text(paths)


def names(paths: Any) -> str:
    return "; ".join(" › ".join(path["path"]) for path in paths)  # noqa: RUF001


def answer(server: Server, **content: Any) -> Any:
    return httpx.post(f"{server.url}/predict", json=content).raise_for_status().json()["predictions"][0]


def predicted(page: Page) -> set[str]:
    return {row.get_attribute("data-label") or "" for row in page.locator(".predicted").all()}


def labels_of(paths: Any) -> set[str]:
    return {label for path in paths for label in path["path"]}


def move(page: Page, level: int, threshold: float) -> None:
    page.get_by_label(f"Level {level}").fill(str(threshold))
