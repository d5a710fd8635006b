"""Every system behind the server: the same predictions as in Python."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import pytest
from every_system import TEXTS, saved
from served import processes_of, start_server, wait_until_ready

from ptmt_lightning.inference import Classifier
from ptmt_lightning.inference.export import export_model

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("system", "form"), [("bert", "openvino"), ("gacaps", "model"), ("hbgl", "model")])
def test_predictions_are_those_of_python(tmp_path: Path, system: str, form: str) -> None:
    saved(tmp_path, system)
    expected = Classifier.from_pretrained(tmp_path / "model").predict(TEXTS, top_k=2)
    if form == "openvino":
        export_model(str(tmp_path / "model"), tmp_path / form, file_format="openvino")
    url, process = start_server(tmp_path / form, tmp_path / "log")
    try:
        wait_until_ready(url, process)
        answer = httpx.post(f"{url}/predict", json={"texts": TEXTS, "top_k": 2}, timeout=60)
    finally:
        for pid in processes_of(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait()
    assert answer.status_code == 200
    for paths, wanted in zip(answer.json()["predictions"], expected, strict=True):
        assert [tuple(path["path"]) for path in paths] == [path.labels for path in wanted]
        for path, like in zip(paths, wanted, strict=True):
            assert path["probabilities"] == pytest.approx(like.probabilities, abs=2e-6)
