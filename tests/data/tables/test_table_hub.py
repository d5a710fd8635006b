"""Data sets of the hub as tables; the hub itself is never asked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from converted import WHOLE, documents

from ptmt_lightning.data.tables.convert import convert
from ptmt_lightning.data.tables.hub import HubData, hub_data
from ptmt_lightning.data.tables.options import TableOptions
from ptmt_lightning.data.tables.sources import _hub_source


@pytest.mark.parametrize("path", ["hf://", "hf://name", "hf://a/b/c/d", "hf://a//b"])
def test_a_name_is_checked(path: str) -> None:
    with pytest.raises(ValueError, match=r"expected hf://OWNER/NAME, hf://OWNER/NAME/CONFIG, or one of them with @REV"):
        hub_data(path)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ValueError, match=r"^hf://a/b: needs the library datasets .*; pip install 'ptmt_lightning\[hub\]'$"
    ):
        hub_data("hf://a/b")


def test_a_hub_that_can_not_be_reached_is_one_line() -> None:
    pytest.importorskip("datasets")
    with pytest.raises(
        ValueError, match=r"^hf://a/b: can't be read \([^\n]*\); check name, config and network, or give"
    ):
        hub_data("hf://a/b")


def test_numbers_of_labels_become_their_names_and_splits_are_kept(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    label = datasets.ClassLabel(names=["Sales", "Support"])
    features = datasets.Features({"text": datasets.Value("string"), "label": label, "tags": datasets.Sequence(label)})
    parts = {
        name: datasets.Dataset.from_dict(
            {"text": [f"{name} {i}" for i in range(3)], "label": [0, 1, -1], "tags": [[0, 1], [1], []]},
            features=features,
        )
        for name in ("train", "validation", "unsupervised")
    }
    for paths, expected in {
        "label": [[["Sales"]], [["Support"]], []],
        "tags": [[["Sales"], ["Support"]], [["Support"]], []],
    }.items():
        options = TableOptions(paths=paths, **WHOLE)
        convert(_hub_source("hf://a/b", HubData("hf://a/b", parts)), options, tmp_path / paths)
        found = documents(tmp_path / paths)
        assert [labels for _, labels in found["train"]] == expected
        assert [text for text, _ in found["val"]] == ["validation 0", "validation 1", "validation 2"]
        assert not found["test"]
