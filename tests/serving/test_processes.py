"""What becomes of a server whose processes are killed or stopped, or told to end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from conftest import TOY_EDGES, saved_ptmt
from processes import wait_for
from served import Server, connect, processes_of, rest, served, start_server, wait_until_ready, worker_of

from ptmt_lightning.taxonomy import Taxonomy

pytestmark = pytest.mark.slow

CONTENT = {"texts": ["m n o", "x y z"] * 100}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("served")) as server:
        yield server


def post(server: Server) -> httpx.Response:
    return httpx.post(f"{server.url}/predict", json=CONTENT, timeout=60)


def health(server: Server) -> int:
    return httpx.get(f"{server.url}/health", timeout=30).status_code


def has_another_worker(server: Server, workers: set[int]) -> bool:
    """Whether one runs that is none of these; for a moment the server may not know yet that one has died."""
    try:
        return worker_of(server) not in workers
    except ValueError:  # there is none
        return False


def test_a_killed_worker_is_replaced_and_no_request_is_lost(server: Server) -> None:
    expected = post(server).json()
    workers = set()
    with ThreadPoolExecutor(4) as clients:
        answers = [clients.submit(post, server) for _ in range(24)]
        for _ in range(2):
            workers.add(worker_of(server))
            os.kill(worker_of(server), signal.SIGKILL)
            wait_for(lambda: has_another_worker(server, workers) and health(server) == 200)
        found = [answer.result() for answer in answers]
    assert worker_of(server) not in workers
    assert {answer.status_code for answer in found} <= {200, 503}
    assert all(answer.json() == expected for answer in found if answer.status_code == 200)
    assert sum(answer.status_code == 200 for answer in found) > 12
    metrics = httpx.get(f"{server.url}/metrics").text
    assert "ptmt_worker_restarts_total 2.0" in metrics


def test_any_other_process_that_is_killed_is_replaced(server: Server) -> None:
    for pid in processes_of(server.process.pid):
        if pid != server.process.pid:
            os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)
    wait_until_ready(server.url, server.process)
    assert post(server).status_code == 200


def test_health_says_when_nothing_is_predicted_and_live_that_the_server_answers(server: Server) -> None:
    """Fault B8; a worker that is stopped for good is replaced."""
    stopped = worker_of(server)
    os.kill(stopped, signal.SIGSTOP)
    time.sleep(2.1)  # a prediction of the last two seconds counts
    began = time.monotonic()
    answer = httpx.get(f"{server.url}/health", timeout=30)
    assert (answer.status_code, answer.json()) == (503, {"detail": "no prediction within 3 seconds"})
    assert time.monotonic() - began < 4
    assert httpx.get(f"{server.url}/live").text == "ok"
    wait_for(lambda: health(server) == 200)
    assert worker_of(server) != stopped
    assert "gave no sign for 5 seconds" in server.log.read_text()


def test_a_worker_that_goes_on_after_a_stop_is_kept(server: Server) -> None:
    wait_for(lambda: health(server) == 200)
    stopped = worker_of(server)
    os.kill(stopped, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as clients:
        answer = clients.submit(post, server)
        time.sleep(1)
        os.kill(stopped, signal.SIGCONT)
        assert answer.result().status_code == 200
    assert worker_of(server) == stopped


def test_a_model_that_has_gone_ends_the_server_with_an_error(tmp_path: Path) -> None:
    """Fault B4: what can't be restarted does not stay as if it were there."""
    with served(tmp_path) as server:
        shutil.rmtree(tmp_path / "model")
        os.kill(worker_of(server), signal.SIGKILL)
        assert server.process.wait(90) == 1
        wait_for(lambda: processes_of(server.process.pid) == [])
        assert "error: " in server.log.read_text()
        assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize(
    ("name", "to_all"),
    [("SIGKILL", False), ("SIGTERM", True), ("SIGHUP", False)],
)
def test_nothing_is_left_of_a_server_that_gets_a_signal(tmp_path: Path, name: str, to_all: bool) -> None:
    """Faults B4 and B7: its processes end, its port is free; but for SIGKILL, requests in hand are answered before."""
    number = signal.Signals[name]
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip(f"{name} is ignored here, as under nohup, and stays so in a server")
    body = json.dumps(CONTENT).encode()
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with served(tmp_path) as server, ExitStack() as stack:
        expected = post(server).json()
        silent = stack.enter_context(connect(server, b"GET / HTTP/1.1\r\n"))
        if number == signal.SIGKILL:
            os.kill(worker_of(server), signal.SIGSTOP)  # even so
        asking = [stack.enter_context(connect(server, head % len(body) + body)) for _ in range(4)]
        wait_for(lambda: "ptmt_connections 6.0" in httpx.get(f"{server.url}/metrics").text)
        httpx.get(f"{server.url}/metrics")  # those accepted above have been read when a later one is answered
        for pid in processes_of(server.process.pid) if to_all else [server.process.pid]:
            os.kill(pid, number)
        answers = [rest(connection).partition(b"\r\n\r\n")[2] for connection in asking]
        rest(silent)
        assert server.process.wait(90) == (-number if number == signal.SIGKILL else 0)
        wait_for(lambda: processes_of(server.process.pid) == [])
        with pytest.raises(ConnectionRefusedError):
            connect(server)
        if number == signal.SIGKILL:
            assert answers == [b""] * 4
        else:
            assert [json.loads(answer) for answer in answers] == [expected] * 4
        log = server.log.read_text()
        assert not re.search("Traceback|died|Warning", log)


def test_a_server_that_is_told_to_end_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    saved_ptmt(tmp_path, Taxonomy(TOY_EDGES))
    _, process = start_server(tmp_path / "model", tmp_path / "log")
    wait_for(lambda: "listening" in (tmp_path / "log").read_text(), 60)
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 0
    wait_for(lambda: processes_of(process.pid) == [])
    assert "Traceback" not in (tmp_path / "log").read_text()
