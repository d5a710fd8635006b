"""A server over its socket, beside the same model in Python."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import TOY_DOCUMENTS, saved_ptmt
from served import Server, served
from warm import warm_ptmt

from ptmt_lightning.taxonomy import Taxonomy

pytestmark = pytest.mark.slow

TEXTS = [str(document["text"]) for document in TOY_DOCUMENTS]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("served")) as server:
        yield server


def post(server: Server, content: Any) -> httpx.Response:
    if isinstance(content, bytes):
        headers = {"Content-Type": "application/json"}
        return httpx.post(f"{server.url}/predict", content=content, headers=headers, timeout=60)
    return httpx.post(f"{server.url}/predict", json=content, timeout=60)


def test_predictions_are_those_of_python(server: Server) -> None:
    settings: list[dict[str, Any]] = [
        {}, {"threshold": 0.3}, {"threshold": [0.9, 0.1, 0.1]}, {"top_k": 1}, {"prune": False, "threshold": 0.6},
    ]  # fmt: skip
    requests = [{"texts": TEXTS[first:], **options} for first in range(len(TEXTS)) for options in settings]
    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(lambda content: post(server, content), requests))
    for content, answer in zip(requests, answers, strict=True):
        assert answer.status_code == 200
        expected = server.classifier.predict(**content)
        found = answer.json()["predictions"]
        for paths, wanted in zip(found, expected, strict=True):
            assert [tuple(path["path"]) for path in paths] == [path.labels for path in wanted]
            for path, like in zip(paths, wanted, strict=True):
                assert path["probabilities"] == pytest.approx(like.probabilities, abs=2e-6)


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b'{"te', 422, "JSON decode error"),
        (b"", 422, "Field required"),
        (b"\xff\xfe", 422, ""),
        (b'["a"]', 422, "valid dictionary"),
        (b'{"texts": ["a"], "threshold": NaN}', 422, "threshold"),
        (b'{"texts": ["a"], "threshold": 1e999}', 422, "threshold"),
        (b'{"texts": ["\\ud800"]}', 422, "texts.0: Input should be a valid string"),
        ({"texts": []}, 422, "texts: List should have at least 1 item"),
        ({"texts": "a"}, 422, "texts: Input should be a valid list"),
        ({"texts": [None]}, 422, "texts.0: Input should be a valid string"),
        ({"texts": ["a"] * 257}, 422, "texts: List should have at most 256 items"),
        ({"texts": ["a" * 100_001]}, 422, "texts.0: String should have at most 100000 characters"),
        ({"texts": ["a"], "top_k": 0}, 422, "top_k: Input should be greater than or equal to 1"),
        ({"texts": ["a"], "prune": "no"}, 422, "prune: Input should be a valid boolean"),
        ({"texts": ["a"], "treshold": 0.5}, 422, "treshold: Extra inputs are not permitted"),
        ({"texts": ["a"], "threshold": [0.5]}, 422, "threshold=[0.5]: expected a number, or 3 numbers, one a level"),
        ({"texts": ["a" * 99_000] * 11}, 413, "the request has more than 1048576 bytes; split it"),
    ],
)
def test_bad_requests_get_the_reason(server: Server, content: Any, status: int, reason: str) -> None:
    answer = post(server, content)
    assert answer.status_code == status
    assert reason in answer.json()["detail"]


def test_one_bad_request_does_not_spoil_its_batch(server: Server) -> None:
    requests: list[dict[str, Any]] = [{"texts": TEXTS}, {"texts": TEXTS, "threshold": [0.5]}] * 20
    with ThreadPoolExecutor(4) as clients:
        statuses = list(clients.map(lambda content: post(server, content).status_code, requests))
    assert statuses == [200, 422] * 20


def test_what_else_it_tells(server: Server) -> None:
    assert httpx.get(f"{server.url}/health").text == "ok"
    info = httpx.get(f"{server.url}/info").json()["model"]
    assert info["levels"] == [3, 7, 1]
    assert info["thresholds"] == [0.5, 0.5, 0.5]
    assert info["prune"] is True
    assert info["limits"] == {"texts": 256, "characters_a_text": 100_000, "bytes": 2**20}
    assert ["A", "AA"] in httpx.get(f"{server.url}/taxonomy").json()["edges"]
    schemas = httpx.get(f"{server.url}/openapi.json").json()["components"]["schemas"]
    assert set(schemas["PredictRequest"]["properties"]) == {"texts", "threshold", "top_k", "prune"}
    assert "PredictResponse" in schemas
    assert httpx.get(f"{server.url}/nothing").status_code == 404


def test_overload_turns_some_away_and_passes(server: Server) -> None:
    content = {"texts": TEXTS * 40}
    with ThreadPoolExecutor(40) as clients:
        answers = list(clients.map(lambda _: post(server, content), range(80)))
    assert {answer.status_code for answer in answers} == {200, 503}
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.headers["retry-after"] == "1"
    assert post(server, {"texts": TEXTS}).status_code == 200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "error: port=70000: expected an integer in [0, 65535]; set port to one"),
        (["--host", "here.invalid"], "error: host='here.invalid': no address of this machine"),
        (
            ["--host", "192.0.2.1"],
            "error: host='192.0.2.1', port=8000: can't be used (",
        ),
        (["--max-connections", "1"], "error: max_connections=1: expected an integer >= 2"),
        (["--batch-size", "0"], "error: batch_size=0: expected an integer >= 1"),
        (["--device", "cuda:9", "--port", "0"], "error: device='cuda:9': not there"),
        (["--timeout", "0"], "error: timeout=0.0: expected a number > 0"),
    ],
)
def test_what_can_not_be_served_is_said_at_once(
    tmp_path: Path, toy_taxonomy: Taxonomy, arguments: list[str], message: str
) -> None:
    saved_ptmt(tmp_path, toy_taxonomy)
    command = [*warm_ptmt(), "serve", str(tmp_path / "model"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
