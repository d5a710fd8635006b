"""The server's description against its answers, with requests that are made from the description."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from served import served

pytestmark = pytest.mark.slow


def test_the_server_answers_as_its_description_says(tmp_path: Path) -> None:
    with served(tmp_path, "--max-pending", "64", "--timeout", "60") as server:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("st")), "run", f"{server.url}/openapi.json", "--seed", "0",
             "--max-examples", "60", "--checks", "all", "--phases", "examples,coverage,fuzzing", "--no-color"],
            capture_output=True, text=True, timeout=900, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-5000:]
        log = server.log.read_text()
    assert "Traceback" not in log
    assert "died" not in log
