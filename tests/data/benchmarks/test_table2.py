"""Figures of a benchmark beside those of the paper's Table 2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmark_modules import SPLITS
from raw import benchmark, module, prepared, put

from ptmt_lightning.data.benchmarks.bugs import BugsDataModule
from ptmt_lightning.data.benchmarks.table2 import compare
from ptmt_lightning.data.benchmarks.wos import WOSDataModule


def test_figures_stand_beside_those_of_the_paper(tmp_path: Path) -> None:
    data = benchmark("bgc", tmp_path)
    content = prepared(data)
    texts = [text for split in SPLITS for text, _ in content[split]]
    other = "differs, no known reason"
    assert [tuple(row) for row in compare(data)] == [
        ("documents", "9", "91,894", other),
        ("depth", "4", "4", ""),
        ("labels overall", "10", "146", other),
        ("labels a level", "4-3-2-1", "7-46-77-16", other),
        ("mean characters", f"{sum(map(len, texts)) / 9:.0f}", "996", other),
        ("train", "4", "58,715", other),
        ("val", "3", "14,785", other),
        ("test", "2", "18,394", other),
    ]


WOS_TRAIN = "the paper's 31,306 still contain the 6,262 for validation"
ONE_MORE = "folds differ by a document"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "level_sizes", "size", "characters", "remarks", "in_fold_2"),
    [
        (WOSDataModule, (7, 138), 46_960, 1376, {"train": WOS_TRAIN}, {
            "train": f"{WOS_TRAIN}; {ONE_MORE}", "test": ONE_MORE,
        }),
        (WOSDataModule, (7, 134), 46_960, 1376, {
            "train": WOS_TRAIN,
            "labels a level": "the text files number 134 areas; by its names, the sheet has 138",
            "labels overall": "7 + 134 in the text files",
        }, None),
        (BugsDataModule, (17, 85), 35_050, 2026, {}, {"train": ONE_MORE, "test": ONE_MORE}),
    ],
)  # fmt: skip
def test_data_of_the_published_size_agree_in_everything(
    kind: Any, level_sizes: tuple[int, int], size: int, characters: int, remarks: dict[str, str],
    in_fold_2: dict[str, str] | None, tmp_path: Path,
) -> None:  # fmt: skip
    """As many documents and labels as in the paper's Table 2; the first fold has the splits of the paper."""
    name = "wos" if kind is WOSDataModule else "bugs"
    tops, lows = level_sizes
    text = "w" * characters
    labels = [[f"T{low % tops}", f"T{low % tops}_{low}"] for low in range(lows)]
    lines = [json.dumps({"text": text, "labels": labels[i % lows]}) + "\n" for i in range(size)]
    files = {f"{name}_train.jsonl": "".join(lines[:30_000]), f"{name}_test.jsonl": "".join(lines[30_000:])}
    data = module(kind, put(tmp_path / name, files), fold=0)
    data.prepare_data()
    rows = compare(data)
    assert {row.measure: row.remark for row in rows if row.remark} == remarks
    assert all(row.here == row.paper for row in rows if not row.remark)
    if in_fold_2 is not None:
        third = module(kind, tmp_path / name, fold=2)
        third.prepare_data()
        assert {row.measure: row.remark for row in compare(third) if row.remark} == in_fold_2
    for path in (*(data.folder / "raw").glob("*"), *data.path.glob("*")):
        path.unlink()  # 200 MB that pytest would keep
