"""Copies of saved models: whole, of the model alone, or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import saved_ptmt
from every_system import TEXTS

from ptmt_lightning.inference import Classifier
from ptmt_lightning.taxonomy import Taxonomy


@pytest.fixture
def model(tmp_path: Path, toy_taxonomy: Taxonomy) -> Path:
    """A saved model as it lies in a hub's cache, where files are links, with its card and something private."""
    saved_ptmt(tmp_path, toy_taxonomy)
    blobs = (tmp_path / "model").rename(tmp_path / "blobs")
    (blobs / "README.md").write_text("# A card\n")
    (blobs / "notes.docx").write_bytes(b"private")
    cached = tmp_path / "cached"
    cached.mkdir()
    for path in blobs.iterdir():
        (cached / path.name).symlink_to(path)
    return cached


def test_a_copy_is_the_model(model: Path, tmp_path: Path) -> None:
    classifier = Classifier.from_pretrained(model)
    classifier.save_pretrained(tmp_path / "new/copy")
    shutil.rmtree(tmp_path / "blobs")
    names = {path.name for path in (tmp_path / "new/copy").iterdir()}
    assert names == {path.name for path in model.iterdir()} - {"notes.docx"}
    copied = Classifier.from_pretrained(str(tmp_path / "new/copy"))
    assert copied.predict(TEXTS) == classifier.predict(TEXTS)


def test_what_is_not_copied(model: Path, tmp_path: Path) -> None:
    classifier = Classifier.from_pretrained(model)
    (tmp_path / "there").mkdir()
    with pytest.raises(
        ValueError, match=r"^save_directory='.*/there': there already; remove it, or give another name$"
    ):
        classifier.save_pretrained(tmp_path / "there")
    shutil.rmtree(model)
    with pytest.raises(ValueError, match=r"/cached: the model's files have gone since it was opened; restore them, or"):
        classifier.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_without_a_network_nothing_is_pushed(model: Path) -> None:
    with pytest.raises(ValueError, match=r"^team/topics: the hub did not take it: [^\n]*offline mode[^\n]*HF_TOKEN$"):
        Classifier.from_pretrained(model).push_to_hub("team/topics", private=True)
