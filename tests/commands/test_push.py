"""``ptmt push`` against a stand-in for a model hub, which takes what the hub's own client sends."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import saved_ptmt
from helpers import serving

from ptmt_lightning.inference import Classifier
from ptmt_lightning.taxonomy import Taxonomy


class Hub(ThreadingHTTPServer):
    """Keeps the files of commits; knows one token."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.repository: dict[str, object] = {}


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        if "/tree/main" in self.path:
            files = self.server.files.items()
            self._answer(200, [{"type": "file", "path": name, "size": len(of), "oid": "0"} for name, of in files])
        else:
            self._answer(200, {"id": "team/topics", "siblings": [{"rfilename": name} for name in self.server.files]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != "Bearer good":
            self._answer(401, {"error": "Invalid username or password."})
        elif self.path == "/api/repos/create":
            self.server.repository = json.loads(body)
            self._answer(200, {"url": self._url("")})
        elif self.path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(body)["files"]]
            files = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            self._answer(200, {"files": files})
        elif self.path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "deletedFile":
                    del self.server.files[line["value"]["path"]]
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._answer(200, {"commitUrl": self._url("commit/1"), "commitOid": "1", "pullRequestUrl": None})
        else:
            self._answer(200, {})

    def _url(self, rest: str) -> str:
        return f"http://{self.headers['Host']}/team/topics/{rest}".rstrip("/")

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub()) as hub:
        yield hub


@pytest.fixture
def model(tmp_path: Path, toy_taxonomy: Taxonomy) -> Path:
    """A trained model's folder, with a card and with what doesn't belong to it."""
    saved_ptmt(tmp_path, toy_taxonomy)
    folder = next(path.parent for path in tmp_path.rglob("ptmt.json"))
    (folder / "README.md").write_text("# A card\n")
    (folder / "notes.docx").write_bytes(b"private")
    return folder


def push(hub: Hub, *arguments: str | Path, token: str = "good") -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: the client reads the hub's address when it is imported."""
    environment = os.environ | {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_TOKEN": token}
    environment |= {"HF_HUB_OFFLINE": "0"}
    command = [str(Path(sys.executable).with_name("ptmt")), "push", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.slow
def test_the_hub_has_the_model_and_nothing_else(hub: Hub, model: Path, tmp_path: Path) -> None:
    hub.files = {"model.onnx": b"of an earlier model", "data.csv": b"its owner's"}
    done = push(hub, model, "team/topics", "--private")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("/team/topics: opens with Classifier.from_pretrained('team/topics')")
    assert hub.repository["visibility"] == "private"
    assert "notes.docx" not in hub.files
    assert "model.onnx" not in hub.files
    assert hub.files.pop("data.csv") == b"its owner's"
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, content in hub.files.items():
        (copy / name).write_bytes(content)
    assert (copy / "README.md").exists()
    texts = ["tea and cake", "a tram"]
    assert Classifier.from_pretrained(copy).predict(texts) == Classifier.from_pretrained(model).predict(texts)


@pytest.mark.slow
def test_what_the_hub_refuses(hub: Hub, model: Path) -> None:
    done = push(hub, model, "team/topics", token="bad")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "error: team/topics: the hub did not take it: " in done.stderr
    assert "401" in done.stderr
    assert done.stderr.rstrip().endswith("check the name, and log in with HF_TOKEN")
    done = push(hub, model, "a/b/c")
    assert done.returncode == 1
    assert "error: a/b/c: the hub did not take it: " in done.stderr
    assert hub.files == {}
    hub.server_port = 9  # where nobody answers
    done = push(hub, model, "team/topics")
    assert done.returncode == 1
    assert "error: team/topics: the hub did not take it: " in done.stderr
    assert "Traceback" not in done.stderr
