"""Splits that a table lacks are drawn evenly, without a text in two of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from converted import convert_table, documents
from hypothesis import given
from hypothesis import strategies as st

from ptmt_lightning.data.tables.splits import draw, text_key

PATHS = [(top, f"{top}{leaf}") for top in "ABC" for leaf in range(4)]


def drawn(texts: list[str], labels: list[list[int]], seed: int = 0, **shares: float) -> dict[str, list[int]]:
    keys = np.array([text_key(text) for text in texts], dtype=np.uint64)
    found = draw(keys, labels, PATHS, shares or {"val": 0.1, "test": 0.2}, seed)
    return {split: np.flatnonzero(chosen).tolist() for split, chosen in found.items()}


def test_each_label_has_its_share_in_each_split() -> None:
    labels = [[i % 12] for i in range(1200)]
    splits = drawn([f"t{i}" for i in range(1200)], labels)
    assert {split: len(rows) for split, rows in splits.items()} == {"val": 120, "test": 240}
    for split, share in {"val": 10, "test": 20}.items():
        counts = Counter(labels[row][0] for row in splits[split])
        assert set(counts) == set(range(12))
        assert all(abs(count - share) <= 1 for count in counts.values())


def test_labels_with_few_documents_are_spread_by_their_parent() -> None:
    """Each of 96 leaves has four documents; their parents have their share to within two."""
    labels = [[i % 12] for i in range(48)] + [[0]] * 160
    splits = drawn([f"t{i}" for i in range(len(labels))], labels)
    tops = Counter(PATHS[labels[row][0]][0] for row in splits["test"])
    assert sum(tops.values()) == 42
    assert tops["B"] in (2, 3, 4)
    assert tops["C"] in (2, 3, 4)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.lists(st.integers(0, 11), max_size=3, unique=True)), min_size=25),
    st.integers(0, 5),
)
def test_no_text_is_in_two_splits_and_no_document_is_lost(cells: list[tuple[int, list[int]]], seed: int) -> None:
    texts = [f"{'  ' * (row % 2)}text {number}" for row, (number, _) in enumerate(cells)]
    if len({number for number, _ in cells}) < 15:
        return
    labels = [found for _, found in cells]
    splits = drawn(texts, labels, seed)
    assert splits == drawn(texts, labels, seed)
    kept = {split: {texts[row].strip() for row in rows} for split, rows in splits.items()}
    kept["train"] = {text.strip() for row, text in enumerate(texts) if row not in splits["val"] + splits["test"]}
    assert len(set.union(*kept.values())) == sum(map(len, kept.values()))
    num_texts = len({text.strip() for text in texts})
    assert [len(kept[split]) for split in ("val", "test")] == [round(0.1 * num_texts), round(0.2 * num_texts)]


def test_every_path_stays_in_training_where_there_are_others_to_draw() -> None:
    labels = [[0] for _ in range(200)] + [[path] for path in range(1, 12)]
    for seed in range(20):
        splits = drawn([f"t{i}" for i in range(len(labels))], labels, seed)
        assert not [row for rows in splits.values() for row in rows if row >= 200]


def test_another_seed_draws_others() -> None:
    labels = [[i % 12] for i in range(600)]
    assert drawn([str(i) for i in range(600)], labels, 0) != drawn([str(i) for i in range(600)], labels, 1)


def frame(**parts: int) -> pd.DataFrame:
    texts = [(f"{part} {i}", f"L{i % 3}", part) for part, size in parts.items() for i in range(size)]
    return pd.DataFrame(texts, columns=["text", "label", "part"])


@pytest.mark.parametrize(
    ("parts", "sizes", "said"),
    [
        ({"train": 100, "dev": 10, "Test": 20}, (100, 10, 20), "train 100, val 10, test 20"),
        ({"train": 100, "test": 20}, (90, 10, 20), "train 90, val 10, test 20 (val drawn with dataset.split_seed=0)"),
        ({"train": 100, "valid": 7}, (90, 7, 10), "train 90, val 7, test 10 (test drawn with dataset.split_seed=0)"),
        ({"training": 100}, (80, 10, 10), "train 80, val 10, test 10 (val and test drawn with dataset.split_seed=0)"),
    ],
)
def test_only_splits_that_are_missing_are_drawn(
    tmp_path: Path, parts: dict[str, int], sizes: tuple[int, int, int], said: str
) -> None:
    lines = convert_table(frame(**parts), tmp_path / "to", split_column="part")
    assert tuple(len(found) for found in documents(tmp_path / "to").values()) == sizes
    assert lines[1].endswith(f"; {said}")


def test_a_share_of_zero_draws_none(tmp_path: Path) -> None:
    convert_table(frame(train=50), tmp_path / "to", split_column="part", test_share=0)
    assert [len(found) for found in documents(tmp_path / "to").values()] == [45, 5, 0]
    assert not (tmp_path / "to/test.jsonl").exists()


def test_a_line_says_which_row_it_is_from(tmp_path: Path) -> None:
    frame(train=3).to_csv(tmp_path / "t.csv", index=False)
    convert_table(tmp_path / "t.csv", tmp_path / "to", val_share=0, test_share=0)
    assert '"from": "t.csv:4"' in (tmp_path / "to/train.jsonl").read_text().splitlines()[2]
