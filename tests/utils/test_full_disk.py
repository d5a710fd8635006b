"""A disk that gets full, stood in for by a limit on the size of files: one line, nothing half-written."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from conftest import TOY_DOCUMENTS, saved_ptmt, tiny_source, write_folder

from ptmt_lightning.cli import main
from ptmt_lightning.data.cache import tokenized
from ptmt_lightning.data.document import Document
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils.errors import one_line
from ptmt_lightning.utils.files import write_text

TOO_LARGE = r"the file gets larger than the disk or a limit \(ulimit -f\) allows"


def test_a_text_file_that_does_not_fit_is_named_and_not_left(tmp_path: Path, small_files: None) -> None:
    with pytest.raises(OSError, match="File too large") as error:
        write_text(tmp_path / "x.csv", "x" * 200_000)
    assert str(one_line(error.value)).startswith(f"{tmp_path}/x.csv: the file gets larger")
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_does_not_fit_is_named_and_not_left(
    tmp_path: Path, toy_taxonomy: Taxonomy, small_files: None
) -> None:
    _, tokenizer, _ = tiny_source().load(["m n o"])
    folder = write_folder(tmp_path / "data", [("ROOT", "A")], train=TOY_DOCUMENTS)
    documents = [Document(str(i), "m n o " * 1000, (0,)) for i in range(50)]
    with pytest.raises(OSError, match=r"\[Errno 27\]|File too large") as error:
        tokenized(
            folder / "train.jsonl", documents, taxonomy=toy_taxonomy, tokenizer=tokenizer, max_tokens=5000,
            cache_dir=tmp_path / "cache",
        )  # fmt: skip
    assert f"{tmp_path}/cache/train-" in str(one_line(error.value))
    assert "the file gets larger than the disk" in str(one_line(error.value))
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["torch_export", "onnx", "openvino"])
def test_an_export_that_does_not_fit_is_one_line_and_not_left(
    file_format: str, tmp_path: Path, toy_taxonomy: Taxonomy, small_files: None, capfd: pytest.CaptureFixture[str]
) -> None:
    """PyTorch's own exporters take seconds."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**9, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    saved_ptmt(tmp_path, toy_taxonomy)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    with pytest.raises(SystemExit, match=rf"^error: {tmp_path}/x: {TOO_LARGE}"):
        main(["export", str(tmp_path / "model"), "-o", str(tmp_path / "x"), "--format", file_format])
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert "frame #" not in capfd.readouterr().err
