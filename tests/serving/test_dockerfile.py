"""The image of the server: its description is linted and holds what it promises; it is built where Docker runs."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from conftest import ROOT_DIR, saved_ptmt
from helpers import serving
from served import free_port

from ptmt_lightning.commands import serve
from ptmt_lightning.inference import Classifier
from ptmt_lightning.taxonomy import Taxonomy

DOCKERFILE = ROOT_DIR / "experiments/serving/Dockerfile"
HADOLINT = shutil.which("hadolint") or shutil.which("hadolint", path=str(Path(sys.executable).parent))


def instructions() -> list[tuple[str, str]]:
    """The instructions of the file, continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def all_of(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


@pytest.mark.skipif(HADOLINT is None, reason="needs hadolint, which has no wheel for this machine")
def test_the_linter_has_nothing_to_say() -> None:
    done = subprocess.run([str(HADOLINT), str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_stages_and_user() -> None:
    stages = [stage.partition(" AS ") for stage in all_of("FROM")]
    assert [name for _, _, name in stages] == ["build", "runtime", "baked", "mounted"]
    assert stages[0][0] == stages[1][0]
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", stages[0][0])  # no base that moves
    names = [name for name, _ in instructions()]
    assert all_of("USER") == ["10001"]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert "RUN" not in names[names.index("USER") :]
    assert all_of("ARG") == ["TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu", "MODEL"]
    assert not any(word in DOCKERFILE.read_text() for word in ("ADD ", ":latest", "sudo", "curl"))


def test_the_context_holds_what_is_copied_and_the_wheel_needs() -> None:
    kept = re.findall(r"^!(.+)$", DOCKERFILE.with_name("Dockerfile.dockerignore").read_text(), re.MULTILINE)
    copied = {name for rest in all_of("COPY") if not rest.startswith(("--from", "$")) for name in rest.split()[:-1]}
    assert copied == set(kept) - {"outputs"}
    assert all((ROOT_DIR / name).exists() for name in copied)
    project = tomllib.loads((ROOT_DIR / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {project["project"]["readme"], *project["project"]["license-files"], *wheel["only-include"]}
    assert needed | set(wheel["sources"]) <= copied
    assert re.search(r"'\.\[serve,onnx\]'", " ".join(all_of("RUN")))
    assert {"serve", "onnx"} <= project["project"]["optional-dependencies"].keys()


def test_it_starts_the_server_on_the_port_that_is_exposed() -> None:
    [entry], [arguments], [port] = all_of("ENTRYPOINT"), all_of("CMD"), all_of("EXPOSE")
    assert json.loads(entry) == ["ptmt", "serve"]
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    options = parser.parse_args(json.loads(arguments))
    assert (options.model, options.host, options.port) == ("/model", "0.0.0.0", int(port))


class _Health(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_its_check_of_health_is_that_of_the_server() -> None:
    [check] = all_of("HEALTHCHECK")
    program, *arguments = json.loads(check.partition("CMD ")[2])
    assert program == "python"
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), _Health)) as server:
        command = [sys.executable, *(word.replace(":8000/", f":{server.server_port}/") for word in arguments)]
        assert subprocess.run(command, check=False).returncode == 0
        _Health.status = 503
        assert subprocess.run(command, capture_output=True, check=False).returncode == 1
    assert subprocess.run(command, capture_output=True, check=False).returncode == 1


def docker_runs() -> bool:
    program = shutil.which("docker")
    return program is not None and subprocess.run([program, "info"], capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_an_image_serves_a_model(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    """The build installs everything."""
    if not docker_runs():
        pytest.skip("needs a Docker daemon")
    saved_ptmt(tmp_path, toy_taxonomy)
    build = ["docker", "build", "-q", "-f", str(DOCKERFILE), str(ROOT_DIR)]
    image = subprocess.run(build, capture_output=True, text=True, check=True).stdout.strip()
    port = free_port()
    run = [
        "docker", "run", "-d", "--rm", "--init", "--read-only", "--tmpfs", "/tmp", "-p", f"127.0.0.1:{port}:8000",
        "-v", f"{tmp_path / 'model'}:/model:ro", image,
    ]  # fmt: skip
    container = subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip()
    try:
        wait_for_health(container)
        user = subprocess.run(["docker", "exec", container, "id", "-u"], capture_output=True, text=True, check=True)
        assert user.stdout.strip() == "10001"
        answer = httpx.post(f"http://127.0.0.1:{port}/predict", json={"texts": ["m n o"]}).json()
    finally:
        subprocess.run(["docker", "kill", container], capture_output=True, check=False)
    expected = Classifier.from_pretrained(tmp_path / "model").predict("m n o")
    assert [path["path"] for path in answer["predictions"][0]] == [list(path.labels) for path in expected]


def wait_for_health(container: str, seconds: float = 300) -> None:
    """Until Docker's own checks find the server healthy."""
    form = "{{.State.Health.Status}}"
    end = time.monotonic() + seconds
    while True:
        done = subprocess.run(["docker", "inspect", "-f", form, container], capture_output=True, text=True, check=True)
        if done.stdout.strip() == "healthy":
            return
        assert time.monotonic() < end, done.stdout
        time.sleep(2)
