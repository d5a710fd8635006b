"""The views of a W&B project: what they name, what is sent, and what happens without a login."""

from __future__ import annotations

import csv
import json
import re
import socket
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT_DIR
from helpers import serving, start, toy_arguments
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from wandb_workspaces.reports.v2.interface import UnknownPanel
from wandb_workspaces.workspaces import Workspace, internal

import ptmt_lightning.reporting
from ptmt_lightning.cli import main
from ptmt_lightning.reporting.dashboard import search_spaces, specification, views

SPACES = search_spaces(ROOT_DIR / "conf/search")
GPU = {"system/gpu.0.gpu", "system/gpu.0.memoryAllocated"}  # recorded where there is one


@pytest.fixture
def content() -> dict[str, Any]:
    return specification(views(entity="team", project="toy", name="mine", spaces=SPACES))


def named(node: Any) -> Iterator[str]:
    """Whatever a panel reads: metrics as they are, ``config:dataset.name``, ``regex:...``."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        if key in ("xAxis", "yAxis", "accessor", "targetKey"):
            yield from [value]
        elif key == "metrics":
            yield from value
        elif key == "metricRegex":
            yield f"regex:{value}"
        elif key == "grouping":
            yield from (f"{group['section']}:{group['name']}" for group in value)
        elif isinstance(value, (dict, list)):
            yield from named(value)


def keys(node: dict[Any, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys of a configuration as W&B stores it: what stands below the first part has ``value`` between."""
    for key, value in node.items():
        yield f"{prefix}{key}" if prefix else f"{key}.value"
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{key}." if prefix else f"{key}.value.")


# ---- what panels name ----


@pytest.mark.slow
def test_every_metric_is_one_that_runs_log(content: dict[str, Any], toy_folder: Path, tmp_path: Path) -> None:
    logged, recorded = set(), b""
    for system, setting in (("ptmt", "model.alpha=0.1"), ("bert_ml", "backbone.num_layers=3")):
        more = [f"model={system}", setting, "logger=many", f"hydra.run.dir={tmp_path / system}"]
        done = start(tmp_path, *toy_arguments(toy_folder), *more)
        assert done.returncode == 0, done.stderr
        with (tmp_path / system / "metrics.csv").open() as file:
            logged |= set(next(csv.reader(file)))
        [log] = (tmp_path / system).glob("wandb/offline-run-*/*.wandb")
        recorded += log.read_bytes()
    metrics = {name.removeprefix("summary:") for name in named(content) if not name.startswith("config:")}
    assert metrics >= {"test/h_f1_macro", "val/label_loss", "train/mlm", "train/gaps", "train/tokens_per_second"}
    for name in metrics - GPU:
        if name.startswith("regex:"):  # one for each level; the loss terms no other panel has: none here
            matched = [key for key in logged if re.fullmatch(name.removeprefix("regex:"), key)]
            assert len(matched) == (3 if "_level_" in name else 0), (name, matched)
        elif not name.startswith(("train/", "val/", "test/")):  # of W&B's own, or in its summary
            assert name.removeprefix("system/").encode() in recorded, name
        else:
            assert name in logged


def test_every_setting_is_a_key_of_the_configuration(content: dict[str, Any]) -> None:
    settings = {name.removeprefix("config:") for name in named(content) if name.startswith("config:")}
    assert settings >= {"dataset.value.name", "run.value.model", "test.value", "optimizer.value.learning_rate"}
    known: set[str] = set()
    choices = [path for group in ("model", "loss") for path in (ROOT_DIR / "conf" / group).glob("*.yaml")]
    for choice in choices:
        with initialize_config_dir(str(ROOT_DIR / "conf"), version_base="1.3"):
            composed = OmegaConf.to_container(compose("config", [f"{choice.parent.name}={choice.stem}"]), resolve=False)
        assert isinstance(composed, dict)
        known |= set(keys(composed))
    assert settings <= known


def test_search_spaces_are_those_of_the_configuration() -> None:
    assert set(SPACES) == {path.stem for path in (ROOT_DIR / "conf/search").glob("*.yaml")}
    assert SPACES["ptmt"]["optimizer.learning_rate"] is True
    assert SPACES["ptmt"]["loss.margin"] is False


# ---- the specification ----


def test_it_is_read_back_by_the_library_as_it_was(content: dict[str, Any]) -> None:
    read = json.loads(json.dumps(content))["views"]
    assert [view["displayName"] for view in read] == ["mine: comparison", "mine: search"]
    for written in read:
        view = internal.View.model_validate(written)
        assert view.model_dump(mode="json", by_alias=True, exclude_none=True) == written
        workspace = Workspace._from_model(view)
        assert not any(isinstance(panel, UnknownPanel) for section in workspace.sections for panel in section.panels)
        assert specification([workspace]) == {"views": [written]}


def test_a_view_is_found_again_by_its_title_alone(content: dict[str, Any]) -> None:
    again = specification(views(entity="", project="other", name="mine", spaces={}))
    assert [view["name"] for view in again["views"]] == [view["name"] for view in content["views"]]
    assert len({view["name"] for view in content["views"]}) == 2


def test_a_title_that_wandb_refuses() -> None:
    with pytest.raises(ValueError, match=r"^--name 'a\+b': expected no emoji and no symbols such as \+ or \|$"):
        views(entity="", project="toy", name="a+b", spaces={})


# ---- the command without W&B ----


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, "no API key (set WANDB_API_KEY or run `wandb login`)"),
        ({"WANDB_API_KEY": "0" * 40, "WANDB_MODE": "offline"}, "WANDB_MODE=offline (unset it)"),
    ],
)
def test_without_a_login_it_writes_the_specification(
    fresh_wandb: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environment: dict[str, str],
    reason: str,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        (fresh_wandb / "out").mkdir()
        (fresh_wandb / "out/views.json").write_text("an earlier one")
        main(["dashboard", "--project", "toy", "-o", "out/views.json"])
        with pytest.raises(BlockingIOError):  # nobody has called
            server.accept()
    assert capsys.readouterr().out == (
        f"out/views.json: the views' specification. W&B was left alone: {reason}; then repeat this command\n"
    )
    assert [path.name for path in (fresh_wandb / "out").iterdir()] == ["views.json"]
    written = json.loads((fresh_wandb / "out/views.json").read_text())
    assert [(view["project"], view["displayName"]) for view in written["views"]] == [
        ("toy", "ptmt: comparison"), ("toy", "ptmt: search"),
    ]  # fmt: skip


def test_where_the_server_does_not_answer_it_writes_the_specification(
    fresh_wandb: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:  # bound but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        main(["dashboard", "--project", "toy", "--entity", "team"])
    assert "W&B was left alone: no connection to 127.0.0.1" in capsys.readouterr().out
    assert json.loads((fresh_wandb / "dashboard.json").read_text())["views"][0]["entity"] == "team"


def test_a_folder_that_is_not_there(fresh_wandb: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: -o out/views.json: no folder 'out'; make it first$"):
        main(["dashboard", "--project", "toy", "-o", "out/views.json"])
    assert not list(fresh_wandb.glob("**/*.json"))


def test_without_the_extra_it_says_what_to_install(fresh_wandb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("wandb_workspaces")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "ptmt_lightning.reporting.dashboard")
    monkeypatch.delattr(ptmt_lightning.reporting, "dashboard")
    with pytest.raises(SystemExit, match=r"install it with pip install 'ptmt_lightning\[dashboard\]'$"):
        main(["dashboard", "--project", "toy"])
    assert not (fresh_wandb / "dashboard.json").exists()


# ---- the command with W&B ----


class Server(ThreadingHTTPServer):
    """The part of W&B that keeps views, of a project ``toy`` of ``me``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.views: dict[str, dict[str, Any]] = {}  # by id

    def answer(self, query: str, wanted: dict[str, Any]) -> dict[str, Any]:
        if "upsertView" in query:
            view_id = wanted.get("id", f"id{len(self.views)}")
            self.views[view_id] = wanted
            return {"upsertView": {"view": {"id": view_id, "name": wanted["name"]}, "inserted": "id" not in wanted}}
        if "allViews" in query:
            if (wanted["entity"], wanted["project"]) != ("me", "toy"):
                return {"project": None}
            found = [{"node": {"id": key}} for key, view in self.views.items() if view["name"] == wanted["view"]]
            return {"project": {"allViews": {"edges": found}}}
        return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}}


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path != "/graphql" or not body.startswith(b"{"):  # asks whether anyone is there
            self.send_error(404)
            return
        asked = json.loads(body)
        answer = json.dumps({"data": self.server.answer(asked["query"], asked.get("variables") or {})}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


@pytest.fixture
def server(fresh_wandb: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving(Server()) as server:
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
        yield server


def test_with_a_login_it_creates_the_views_and_then_updates_them(
    server: Server, fresh_wandb: Path, capsys: pytest.CaptureFixture[str], content: dict[str, Any]
) -> None:
    expected = specification(views(entity="me", project="toy", name="ptmt", spaces=SPACES))["views"]
    address = re.escape(f"http://127.0.0.1:{server.server_port}/me/toy?nw=")
    for word in ("created", "updated"):
        server.views = {key: view | {"spec": ""} for key, view in server.views.items()}
        main(["dashboard", "--project", "toy"])
        assert re.fullmatch(rf"({word}: {address}[0-9a-f]{{11}}\n){{2}}", capsys.readouterr().out)
        assert [(view["name"], view["displayName"]) for view in server.views.values()] == [
            (view["name"], view["displayName"]) for view in expected
        ]
        for sent, view in zip(server.views.values(), expected, strict=True):
            assert list(named(json.loads(sent["spec"]))) == list(named(view["spec"]))
    assert not (fresh_wandb / "dashboard.json").exists()


def test_a_project_that_is_not_there(server: Server) -> None:
    with pytest.raises(SystemExit, match=r"^error: --project toi: 'me' has no such project; a run"):
        main(["dashboard", "--project", "toi"])
    assert server.views == {}
