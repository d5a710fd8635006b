"""What a tokenizer must know, and models of a hub: revisions, and a hub that does not answer."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from family_models import save_family

from ptmt_lightning.backbones import Pretrained
from ptmt_lightning.inference.model_folder import ModelFolder


@pytest.mark.parametrize("missing", ["pad_token", "mask_token", "cls_token", "sep_token"])
def test_a_tokenizer_without_a_special_token_is_refused(missing: str, tmp_path: Path) -> None:
    folder = save_family(tmp_path, "bert", ["m n o"])
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {missing: None}))
    with pytest.raises(ValueError, match=rf"^backbone.name='.*': the tokenizer has no {missing}; name them in its"):
        Pretrained(str(folder)).load([])


def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two commits of the hub's model ann/small, as they were downloaded before; the second one is ``main``."""
    commits = ["a" * 40, "b" * 40]
    repository = tmp_path / "hub/models--ann--small"
    for commit, text in zip(commits, ["m n o", "x y z"], strict=True):
        source = save_family(tmp_path / commit, "bert", [text])
        (repository / "snapshots").mkdir(parents=True, exist_ok=True)
        source.rename(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commits[1])
    (repository / "refs/v1").write_text(commits[0])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return commits


def test_a_revision_of_the_hub_is_taken_and_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    commits = hub_cache(tmp_path, monkeypatch)
    for name, commit, word in (("ann/small", commits[1], "x"), ("ann/small@v1", commits[0], "m")):
        backbone, tokenizer, _ = Pretrained(name).load([])
        assert backbone.commit == commit
        assert word in tokenizer.get_vocab()
    assert (
        "ann/small is taken as it was downloaded before: no connection to the hub (HF_HUB_OFFLINE is set)"
        in caplog.text
    )
    with pytest.raises(ValueError, match=r"^backbone.name='ann/small@v2'; the hub can't be reached \(HF_HUB_OFFLINE"):
        Pretrained("ann/small@v2").load([])


def test_a_hub_that_does_not_answer_is_told_once_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    message = r"the hub can't be reached \(http://127.0.0.1:9: .*\), and it was not downloaded before"
    with pytest.raises(ValueError, match=rf"^backbone.name='ann/none'; {message}; connect, or give a local folder$"):
        Pretrained("ann/none").load([])
    with pytest.raises(ValueError, match=rf"^'ann/none@v1' is neither a folder nor a model of the hub; {message}$"):
        ModelFolder.open("ann/none@v1")
    assert time.monotonic() - started < 10
