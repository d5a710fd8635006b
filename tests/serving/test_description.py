"""What a server tells about itself: description, pages, log, figures; and which hosts it answers for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import httpx
import pytest
from processes import wait_for
from served import Server, served

from ptmt_lightning.serving.server import _hosts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_from_the_web(server: Server, path: str) -> None:
    """Fault C3."""
    page = httpx.get(server.url + path)
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert not re.search(r"http|\*", policy)
    loaded = re.findall(r"""<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=["']([^"']*)""", page.text)
    loaded = [url for url in loaded if not url.startswith("data:")]  # written in the page itself
    assert all(url.startswith("/") and not url.startswith("//") for url in loaded)
    for url in loaded:
        assert httpx.get(server.url + url).status_code == 200
    assert not re.search(r"""@import|url\(["']?http""", page.text)


def test_there_is_no_page_that_was_not_asked_for(server: Server) -> None:
    for path in ("/redoc", "/static-offline-docs/../server.py", "/static-offline-docs/%2e%2e/core.py", "/shutdown"):
        assert httpx.get(server.url + path).status_code == 404


def test_the_description_has_every_answer_as_it_is_given(server: Server) -> None:
    """Fault C4; test_schemathesis.py compares it with answers."""
    described = httpx.get(f"{server.url}/openapi.json").json()
    assert set(described["paths"]) == {"/predict", "/explain", "/taxonomy", "/info", "/live", "/health", "/metrics"}
    for path, methods in described["paths"].items():
        for operation in methods.values():
            statuses = set(operation["responses"])
            further = {"/predict": {"413", "422"}, "/explain": {"404", "413", "422"}}.get(path, set())
            assert statuses == {"200", "400", "408", "431", "503"} | further
            for status in statuses - {"200"}:
                schema = operation["responses"][status]["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Problem"}
    schemas = described["components"]["schemas"]
    assert "HTTPValidationError" not in schemas
    assert schemas["Problem"]["properties"]["detail"]["type"] == "string"
    assert schemas["PredictRequest"]["properties"]["threshold"]["anyOf"][1]["minItems"] == 3  # the levels


@pytest.mark.parametrize(
    "content",
    [
        {"texts": ["a"], "threshold": [0.5] * 100_000},
        {"texts": [1] * 100_000},
        {"texts": [["a"]] * 1000},
        {"texts": {str(n): n for n in range(10_000)}},
        {"texts": ["a"], **{f"key{n}": n for n in range(30_000)}},
        {"texts": ["a"], "k" * 500_000: 1},
        {"texts": ["a"], "top_k": "9" * 500_000},
        {"texts": ["a"], "prune": "n" * 500_000},
        {"texts": ["a"], "threshold": "0" * 500_000},
        "a" * 500_000,
    ],
)
def test_a_long_wrong_request_is_not_echoed(server: Server, content: object) -> None:
    answer = httpx.post(f"{server.url}/predict", json=content, timeout=30)
    assert answer.status_code == 422
    assert len(answer.content) < 6000
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize(
    "content", [b"[" * 500_000, b'{"texts": ' * 50_000, b'{"top_k": ' + b"9" * 100_000 + b"}", b"\xff\xfe{}"]
)
def test_a_body_that_is_no_json_is_refused(server: Server, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{server.url}/predict", content=content, headers=headers, timeout=30)
    assert answer.status_code in (400, 422)
    assert len(answer.content) < 6000
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:1234", 200), ("127.0.0.1", 200), ("127.0.0.1:80", 200), ("[::1]:8000", 200),
        ("evil.example", 400), ("evil.example:8000", 400), ("localhost.evil.example", 400), ("127.0.0.1.evil", 400),
        ("", 400), ("localhost:1:2", 400), ("a" * 10_000, 400), ("localhost@evil.example", 400),
    ],
)  # fmt: skip
def test_other_hosts_are_refused(server: Server, host: str, status: int) -> None:
    """Fault C4: a name of another site may lead to this machine."""
    for path in ("/", "/live", "/docs", "/none"):
        answer = httpx.get(server.url + path, headers={"Host": host})
        assert answer.status_code == (404 if path == "/none" and status == 200 else status)
        if status == 400:
            assert "--allowed-hosts" in answer.json()["detail"]
            assert len(answer.content) < 300


def test_which_hosts_are_answered_follows_from_the_address() -> None:
    local = {"localhost", "127.0.0.1", "[::1]"}
    assert _hosts("127.0.0.1", []) == local
    assert _hosts("::1", []) == local
    assert _hosts("10.0.0.5", []) == {*local, "10.0.0.5"}
    assert _hosts("box.lan", ["api.example"]) == {*local, "box.lan", "api.example"}
    assert _hosts("0.0.0.0", []) is None
    assert _hosts("::", []) is None
    assert _hosts("0.0.0.0", ["api.example"]) == {*local, "0.0.0.0", "api.example"}


@pytest.mark.parametrize(
    ("given", "is_taken"),
    [("abc-1.2_3", True), ("a" * 128, True), ("a" * 129, False), ('a" b', False), ("", False), ("a;b", False)],
)
def test_a_request_has_an_identifier_in_answer_and_log(server: Server, given: str, is_taken: bool) -> None:
    answer = httpx.post(f"{server.url}/predict", json={"texts": ["m", "n"]}, headers={"X-Request-ID": given})
    uid = answer.headers["x-request-id"]
    assert (uid == given) == is_taken
    wait_for(lambda: f'"{uid}"' in server.log.read_text())  # the line is written after the answer
    [line] = [line for line in server.log.read_text().splitlines() if f'"{uid}"' in line]
    known = json.loads(line.partition(": ")[2])
    assert known["method"] == "POST"
    assert known["target"] == "/predict"
    assert known["status"] == 200
    assert known["texts"] == 2
    assert known["client"] == "127.0.0.1"
    assert 0 < known["seconds"] < 30


def test_a_client_writes_no_line_of_its_own_into_the_log(server: Server) -> None:
    httpx.get(f"{server.url}/x%0AERROR: all is lost%0D%1B[31m")
    wait_for(lambda: "ERROR: all is lost" in server.log.read_text())  # the line is written after the answer
    log = server.log.read_text()
    assert "\\nERROR: all is lost" in log
    assert "\nERROR" not in log
    assert "\x1b" not in log


def test_the_figures_are_those_of_prometheus(server: Server) -> None:
    httpx.post(f"{server.url}/predict", json={"texts": ["m"] * 5})
    httpx.get(f"{server.url}/none/of/these")
    answer = httpx.get(f"{server.url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    for line in (
        r'ptmt_http_requests_total\{path="/predict",status="200"\} \d',
        r'ptmt_http_requests_total\{path="none",status="404"\} \d',
        r'ptmt_http_request_seconds_bucket\{le="0.1",path="/predict"\}',
        r"ptmt_texts_total \d",
        r"ptmt_batch_texts_sum \d",
        r"ptmt_waiting_requests 0.0",
        r"ptmt_worker_restarts_total 0.0",
        r"ptmt_connections \d",
        r"process_resident_memory",
    ):
        assert re.search(line, answer.text), line


def test_methods_that_are_not_there_are_refused(server: Server) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        answer = httpx.request(method, f"{server.url}/predict", content=b"{}")
        assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})
        assert answer.headers["allow"] == "POST"
