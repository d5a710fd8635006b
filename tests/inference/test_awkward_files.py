"""Files as people have them: other encodings, JSON arrays, NULs, long lines, output over input, cells of formulas."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import saved_ptmt, tiny_source
from hypothesis import example, given
from hypothesis import strategies as st

from ptmt_lightning.cli import main
from ptmt_lightning.inference import Classifier
from ptmt_lightning.inference.output_files import convert_lines
from ptmt_lightning.inference.predict_file import check_files
from ptmt_lightning.inference.text_files import read_rows
from ptmt_lightning.taxonomy import Taxonomy
from ptmt_lightning.utils import lines
from ptmt_lightning.utils.tokens import text_token_ids

TEXTS = ["Straße", "日本 語", "plain"]


def texts(path: Path, **options: Any) -> list[str]:
    rows = list(read_rows(str(path), **options))
    assert [row.error for row in rows] == [None] * len(rows)
    return [row.text for row in rows]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, encoding: str, zipped: bool) -> None:
    mark = "\ufeff" if encoding.endswith(("le", "be")) else ""
    content = (mark + "\n".join(TEXTS) + "\n").encode(encoding)
    path = tmp_path / ("in.txt.gz" if zipped else "in.txt")
    path.write_bytes(gzip.compress(content) if zipped else content)
    assert texts(path) == TEXTS


def test_a_table_and_json_lines_in_utf_16(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes("text,id\r\nStraße,1\r\n".encode("utf-16"))
    (tmp_path / "in.jsonl").write_bytes((json.dumps({"text": "日本"}, ensure_ascii=False) + "\n").encode("utf-16"))
    assert texts(tmp_path / "in.csv") == ["Straße"]
    assert texts(tmp_path / "in.jsonl") == ["日本"]


def test_nul_characters_are_an_error_that_names_the_encoding(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes("ab\ncd\n".encode("utf-16-le"))  # without a mark
    rows = list(read_rows(str(tmp_path / "in.txt")))
    assert all("NUL characters, as UTF-16 does" in (row.error or "") for row in rows[:2])


def test_a_file_that_is_not_what_its_mark_says_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"\xff\xfea\x00\x00\xd8b\x00")
    with pytest.raises(ValueError, match=r"in\.txt: 'utf-16.*' codec can't decode .*; save the file as UTF-8"):
        list(read_rows(str(tmp_path / "in.txt")))


@pytest.mark.parametrize("name", ["in.jsonl", "in.json", "in.json.gz"])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array_is_read_however_it_is_laid_out(tmp_path: Path, name: str, indent: int | None) -> None:
    content = " \n" + json.dumps([{"text": text, "id": i} for i, text in enumerate(TEXTS)], indent=indent)
    (tmp_path / name).write_bytes(gzip.compress(content.encode()) if name.endswith("gz") else content.encode())
    rows = list(read_rows(str(tmp_path / name)))
    assert [(row.number, row.id, row.text) for row in rows] == [(i + 1, str(i), text) for i, text in enumerate(TEXTS)]


def test_an_array_is_a_bad_row_where_the_others_are_good(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('["a"]\n{"text": "b"}\n\n[]\n')
    rows = list(read_rows(str(tmp_path / "in.jsonl")))
    assert [(row.number, row.error is None) for row in rows] == [(1, False), (2, True), (4, False)]
    (tmp_path / "in.jsonl").write_text('[\n{"text": "b"},\n')
    with pytest.raises(ValueError, match="begins like a JSON array, and is none"):
        list(read_rows(str(tmp_path / "in.jsonl")))


def test_a_line_without_an_end_is_rejected_and_the_next_one_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", 100)
    (tmp_path / "in.txt").write_text("x" * 1234 + "\nshort\n" + "y" * 100 + "\n" + "z" * 101 + "\nlast")
    rows = list(read_rows(str(tmp_path / "in.txt")))
    assert [row.error is None for row in rows] == [False, True, True, False, True]
    assert rows[0].error == "the line has more than 100 characters"
    assert [row.text for row in rows if row.error is None] == ["short", "y" * 100, "last"]


def test_a_huge_text_is_cut_before_it_is_tokenised() -> None:
    _, tokenizer, _ = tiny_source().load(["m n o"])
    calls: list[int] = []

    def counting(group: list[str], **options: Any) -> Any:
        calls.extend(map(len, group))
        return tokenizer(group, **options)

    long = "m n o " * 500_000
    assert text_token_ids(counting, [long, "m"], 16) == text_token_ids(tokenizer, ["m n o " * 100, "m"], 16)  # type: ignore[arg-type]
    assert max(calls) == 100_000


# ---- predictions ----


@pytest.fixture
def model(tmp_path: Path, toy_taxonomy: Taxonomy) -> Path:
    saved_ptmt(tmp_path, toy_taxonomy)
    return tmp_path / "model"


def test_texts_among_the_outputs_other_files_are_not_overwritten(tmp_path: Path) -> None:
    """Rows that were rejected are a natural input, and so is a file that the shell passes as standard input."""
    (tmp_path / "o.jsonl.part").mkdir()
    for name in ("o.jsonl.rejected.jsonl", "o.jsonl.part/predicted.jsonl"):
        (tmp_path / name).write_text('{"content": "m n"}\n')
        with pytest.raises(ValueError, match=r"^.*/o\.jsonl.* is the input itself; give another output$"):
            check_files(str(tmp_path / name), str(tmp_path / "o.jsonl"))


def test_standard_input_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s.jsonl").write_text('{"text": "m n"}\n')
    with (tmp_path / "s.jsonl").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        with pytest.raises(ValueError, match=r"s\.jsonl is the input itself; give another output$"):
            check_files("-", str(tmp_path / "s.jsonl"), overwrite=True)


def test_blank_lines_before_a_row_cost_neither_time_nor_numbers(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("\n" * 300_000 + ' \n["x"]\n{"text": "m"}\n')
    found = [(row.number, row.text, row.error is None) for row in read_rows(str(tmp_path / "in.jsonl"))]
    assert found == [(300_002, '["x"]', False), (300_003, "m", True)]


@pytest.mark.parametrize("link", [None, "hard", "symbolic"])
def test_texts_are_not_overwritten_by_their_labels(tmp_path: Path, link: str | None) -> None:
    source = tmp_path / "t.jsonl"
    source.write_text('{"text": "m n"}\n')
    target = source if link is None else tmp_path / "out.jsonl"
    if link == "hard":
        os.link(source, target)
    if link == "symbolic":
        target.symlink_to(source)
    with pytest.raises(ValueError, match=rf"^{target} is the input itself; give another output$"):
        check_files(str(source), str(target), overwrite=True)
    assert source.read_text() == '{"text": "m n"}\n'


@pytest.mark.parametrize(
    ("content", "reason"), [("", "the input holds no row"), ("{}\n[]\n", "all 2 rows were left out, see")]
)
def test_nothing_predicted_is_no_success(model: Path, tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "in.jsonl").write_text(content)
    with pytest.raises(SystemExit, match=rf"^error: .*in\.jsonl: nothing was predicted, {reason}"):
        main(["predict", str(model), str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl")])


LABELS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


def split_paths(cell: str) -> list[list[str]]:
    """Return the paths of a cell of the output's ``labels``, the way back from :func:`join_paths`."""
    if re.match("'+[-=+@\t\r\n\uff1d\uff0b\uff0d\uff20]", cell):
        cell = cell[1:]
    if not cell:
        return []
    paths, label = [[""]], ""
    for escaped, mark, other in re.findall(r"\\(.)|( > |; )|(.)", cell, flags=re.DOTALL):
        if mark:
            paths[-1][-1], label = label, ""
            paths.append([""]) if mark == "; " else paths[-1].append("")
        else:
            label += escaped or other
    paths[-1][-1] = label
    return paths


@given(st.lists(st.lists(LABELS, min_size=1, max_size=4), max_size=4))
@example([["'=x"]])
@example([["''@"], ["-"]])
def test_a_cell_of_paths_can_be_read_back(tmp_path_factory: pytest.TempPathFactory, paths: list[list[str]]) -> None:
    folder = tmp_path_factory.mktemp("csv")
    predicted = [{"path": path, "probabilities": [0.5] * len(path)} for path in paths]
    (folder / "lines").write_text(json.dumps({"row": 1, "predicted": predicted}) + "\n")
    convert_lines(folder / "lines", folder / "out.csv")
    [row] = csv.DictReader((folder / "out.csv").open(newline="", encoding="utf-8"))
    assert split_paths(row["labels"]) == paths
    assert not row["labels"].startswith(tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"))


def test_cells_that_begin_like_a_formula_are_text(tmp_path: Path) -> None:
    paths = [["=1+1", "a > b; c\\"], ["@x"]]
    record = {
        "row": 1,
        "id": "+49",
        "predicted": [{"path": path, "probabilities": [0.5] * len(path)} for path in paths],
    }
    (tmp_path / "lines").write_text(json.dumps(record) + "\n")
    convert_lines(tmp_path / "lines", tmp_path / "out.csv")
    [row] = csv.DictReader((tmp_path / "out.csv").open(newline=""))
    assert (row["id"], row["labels"][0]) == ("'+49", "'")
    assert split_paths(row["labels"]) == paths
    assert row["probabilities"] == "0.5 > 0.5; 0.5"


def test_a_model_predicts_from_an_array_in_utf_16(model: Path, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_bytes(json.dumps([{"text": "m n"}, {"text": "x"}], indent=1).encode("utf-16"))
    main(["predict", str(model), str(tmp_path / "in.json"), "-o", str(tmp_path / "out.jsonl"), "--top-k", "1"])
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    expected = Classifier.from_pretrained(model).predict(["m n", "x"], top_k=1)
    assert [[path["path"] for path in line["predicted"]] for line in lines] == [
        [list(path.labels) for path in paths] for paths in expected
    ]
