"""Exported models score what the trained ones do."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import saved_ptmt
from every_system import ENGINES, MORE, check_exported
from warm import warm_ptmt

from ptmt_lightning.cli import main
from ptmt_lightning.inference import Classifier
from ptmt_lightning.inference.export import FileFormat, export_model
from ptmt_lightning.taxonomy import Taxonomy

# Each export takes some seconds: every family in one format, and every format with an encoder and a decoder.
MORE_CASES: list[tuple[str | None, dict[str, Any], FileFormat]] = [
    (None, {"prompts": "per_document", "slot_place": "before", "slot_init": "cls"}, "onnx"),
    ("roberta", {}, "torch_export"),
    ("deberta-v2", {}, "onnx"),
    ("modernbert", {}, "onnx"),
    ("modernbert", {}, "openvino"),
    ("gpt2", {}, "onnx"),
    ("gpt2", {}, "openvino"),
    ("llama", {}, "torch_export"),
]


@pytest.mark.parametrize(
    ("model_type", "changes", "file_format"),
    [
        *((None, {}, file_format) for file_format in ENGINES),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE_CASES),
    ],
)
def test_scores_equal_those_of_the_trained_model(
    tmp_path: Path, toy_taxonomy: Taxonomy, model_type: str | None, changes: dict[str, Any], file_format: FileFormat
) -> None:
    saved_ptmt(tmp_path, toy_taxonomy, model_type, **changes)
    if (model_type, file_format) == ("modernbert", "openvino"):
        with pytest.raises(ValueError, match=r"^format='openvino': probabilities .* differ by nan, so .*; try onnx"):
            export_model(str(tmp_path / "model"), tmp_path / "exported", file_format=file_format)
        assert [path.name for path in tmp_path.iterdir() if "exported" in path.name] == []
        return
    check_exported(tmp_path, file_format)


@pytest.mark.slow
def test_command_exports_and_predicts_in_8_bits(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    saved_ptmt(tmp_path, toy_taxonomy)
    command = [*warm_ptmt(), "export", str(tmp_path / "model"), "-o", str(tmp_path / "int8"), "--int8"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].endswith("opens with Classifier.from_pretrained, ptmt predict")
    assert done.stderr == ""
    full = Classifier.from_pretrained(tmp_path / "model", device="cpu").probabilities(MORE)
    reduced = Classifier.from_pretrained(tmp_path / "int8").probabilities(MORE)
    assert not torch.allclose(reduced, full, rtol=0, atol=1e-5)
    torch.testing.assert_close(reduced, full, rtol=0, atol=0.1)
    command = [*warm_ptmt(), "predict", str(tmp_path / "int8"), "-"]
    done = subprocess.run(command, input="m n o\n", capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1


def test_what_cannot_be_exported_is_refused(tmp_path: Path, toy_taxonomy: Taxonomy) -> None:
    saved_ptmt(tmp_path, toy_taxonomy, "t5")
    with pytest.raises(ValueError, match=rf"^{tmp_path}/model is an encoder-decoder, which can't be exported yet"):
        export_model(str(tmp_path / "model"), tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
    with pytest.raises(SystemExit, match=r"^error: int8 with format='torch_export': expected format='onnx' or"):
        main(["export", str(tmp_path / "model"), "-o", str(tmp_path / "new"), "--format", "torch_export", "--int8"])
    with pytest.raises(ValueError, match=rf"^{re.escape(str(tmp_path))} is there already; give another folder"):
        export_model(str(tmp_path / "model"), tmp_path)


def test_missing_packages_are_named(tmp_path: Path, toy_taxonomy: Taxonomy, monkeypatch: pytest.MonkeyPatch) -> None:
    saved_ptmt(tmp_path, toy_taxonomy)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        ValueError, match=r"^format='onnx': .*onnx.*; install it with pip install 'ptmt_lightning\[onnx\]'$"
    ):
        export_model(str(tmp_path / "model"), tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
