"""Web of Science: the sheet, the text files and the published JSON lines."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from raw import (
    WOS_AREAS,
    WOS_NODES,
    archive,
    module,
    prepared,
    published,
    put,
    refused,
    sheet,
    wos_rows,
    wos_text_files,
    wos_zip,
)

from ptmt_lightning.data.benchmarks.wos import WOSDataModule

LABELS = [("CS", "CS_AI"), ("Civil", "Civil_Dams"), ("Civil", "Civil_Roads")]
DAMAGED = "delete it and fetch it again"


def data(tmp_path: Path, files: dict[str, Any], **changes: Any) -> Any:
    return module(WOSDataModule, put(tmp_path / "wos", files), **changes)


# ---- the sheet ----


def test_the_sheet_of_the_official_archive(tmp_path: Path) -> None:
    """Stray spaces go, equal areas of two domains stay apart, rare areas go; pandas with openpyxl as reference."""
    table = pd.read_excel(io.BytesIO(sheet(wos_rows())), engine="openpyxl")
    size = table.groupby(["Domain", "area"])["Abstract"].transform("size")
    kept = table[size >= 10]
    texts = kept["Abstract"].str.replace(r"\s+", " ", regex=True).str.strip().tolist()
    labels = [WOS_NODES[domain, area] for domain, area in zip(kept["Domain"], kept["area"], strict=True)]

    content = prepared(data(tmp_path, {"WebOfScience.zip": wos_zip()}))
    assert content["all"] == [(text, [path]) for text, path in zip(texts, labels, strict=True)]
    summary = content["summary"]
    assert summary["documents"] == {"all": 63}
    assert summary["dropped"] == {"label with fewer than 10 documents": 9}
    assert summary["mean_characters"] == pytest.approx(sum(map(len, texts)) / 63)
    assert "the sheet" in summary["form"]
    assert "WebOfScience/Meta-data/Data.xlsx" in summary["form"]


def test_the_taxonomy_of_the_sheet(tmp_path: Path) -> None:
    wos = data(tmp_path, {"Data.xlsx": sheet(wos_rows())})
    assert prepared(wos)["edges"] == [
        ("ROOT", "CS"),
        ("ROOT", "Medical"),
        ("ROOT", "Psychology"),
        ("CS", "CS_Machine-learning"),
        ("Medical", "Medical_Alzheimers-Disease"),
        ("Medical", "Medical_Depression"),
        ("Medical", "Medical_Schizophrenia"),
        ("Psychology", "Psychology_Depression"),
        ("Psychology", "Psychology_Schizophrenia"),
    ]
    assert wos.taxonomy.level_sizes == (3, 6)


@pytest.mark.parametrize(
    ("min_documents", "kept", "dropped"), [(1, 72, 0), (9, 72, 0), (10, 63, 9), (11, 23, 49), (12, 12, 60)]
)
def test_min_documents_drops_areas_with_fewer(min_documents: int, kept: int, dropped: int, tmp_path: Path) -> None:
    counts = Counter(tuple(row[3:5]) for row in wos_rows())
    assert counts == Counter(WOS_AREAS)
    content = prepared(data(tmp_path, {"Data.xlsx": sheet(wos_rows())}, min_documents=min_documents))
    assert content["summary"]["documents"]["all"] == len(content["all"]) == kept
    reason = f"label with fewer than {min_documents} documents"
    assert content["summary"]["dropped"] == ({reason: dropped} if dropped else {})


def test_spellings_of_one_area_are_counted_together(tmp_path: Path) -> None:
    rows = [[1, 2, 3, domain, "Smart Material", "", "Text."] for domain in ("ECE", "ECE ", " ECE") for _ in range(4)]
    rows += [[1, 2, 3, "ECE", "smart  Material ".title(), "", "Text."]]
    content = prepared(data(tmp_path, {"Data.xlsx": sheet(rows)}))
    assert {tuple(path) for _, [path] in content["all"]} == {("ECE", "ECE_Smart-Material")}
    assert len(content["all"]) == 13


def test_rows_without_abstract_are_counted_and_left_out(tmp_path: Path) -> None:
    rows = [*wos_rows(), [1, 2, 3, "CS", "Machine learning", "", "  "], [1, 2, 3, "CS", "Machine learning", "", None]]
    content = prepared(data(tmp_path, {"Data.xlsx": sheet(rows)}))
    assert content["summary"]["dropped"] == {"no text": 2, "label with fewer than 10 documents": 9}
    assert len(content["all"]) == 63


def test_words_that_readers_take_for_no_value_are_texts(tmp_path: Path) -> None:
    rows = [[1, 2, 3, "CS", "NA", "", text] for text in ("nan", "None", "17", "null")]
    content = prepared(data(tmp_path, {"Data.xlsx": sheet(rows)}, min_documents=1))
    assert content["all"] == [(text, [["CS", "CS_NA"]]) for text in ("nan", "None", "17", "null")]


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    rows = [["Short text.", " Green Building ", "Civil "]] * 10
    content = prepared(data(tmp_path, {"Data.xlsx": sheet(rows, ["Abstract", " area", "Domain "])}))
    assert content["all"] == [("Short text.", [["Civil", "Civil_Green-Building"]])] * 10


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        (b"no workbook", ("Data.xlsx: not an Excel workbook (", DAMAGED)),
        (b"", ("Data.xlsx: not an Excel workbook (", DAMAGED)),
        (sheet(wos_rows())[:2000], ("Data.xlsx: not an Excel workbook (", DAMAGED)),
        (archive({"a.txt": "text"}), ("Data.xlsx: not an Excel workbook (", DAMAGED)),
        (
            sheet([[1, "CS", "AI"]], ["Y", "Domain", "area"]),
            ("Data.xlsx:1: no column 'Abstract', found ['Y', 'Domain', 'area']; expected Y1, Y2, Y, Domain, area",),
        ),
        (sheet([], ["Y"]), ("Data.xlsx:1: no column 'Domain', 'area', 'Abstract', found ['Y']; expected",)),
        (
            sheet([*wos_rows()[:3], [1, 2, 3, "CS", None, "", "Text."]]),
            ("Data.xlsx:5: Domain='CS', area='': expected a name in both; fill it in",),
        ),
        (
            sheet([*wos_rows()[:2], [1, 2, 3, None, "Robots", "", "Text."]]),
            ("Data.xlsx:4: Domain='', area='Robots': expected a name in both; fill it in",),
        ),
        (
            sheet([[1, 2, 3, "CS", "?!", "", "Text."]]),
            ("Data.xlsx:2: Domain='CS', area='?!': expected a name in both; fill it in",),
        ),
    ],
    ids=[
        "text",
        "empty",
        "truncated",
        "another zip",
        "no abstract",
        "one column",
        "no area",
        "no domain",
        "no letters",
    ],
)
def test_bad_sheets_are_refused(content: bytes, messages: tuple[str, ...], tmp_path: Path) -> None:
    refused(data(tmp_path, {"Meta-data/Data.xlsx": content}), *messages)


# ---- the text files ----


def test_text_files_give_numbered_areas(tmp_path: Path) -> None:
    """The order of the domains' codes is that of the data set's own description."""
    domains = ["CS", "ECE", "Psychology", "MAE", "Civil", "Medical", "biochemistry"]
    rows = [(f"  Line {i}  of\tdomain {i % 7}. ", i % 7, 10 * (i % 7) + i % 2) for i in range(28)]
    wos = data(tmp_path, wos_text_files(rows, "WOS46985/"), min_documents=1)
    content = prepared(wos)
    assert content["all"] == [
        (f"Line {i} of domain {i % 7}.", [[domains[i % 7], f"{domains[i % 7]}_{10 * (i % 7) + i % 2}"]])
        for i in range(28)
    ]
    assert content["summary"]["form"] == f"the text files in {tmp_path / 'wos/raw/WOS46985'}"
    assert wos.taxonomy.level_sizes == (7, 14)


def test_the_large_folder_is_read_where_its_subsets_are_there_too(tmp_path: Path) -> None:
    files: dict[str, str] = {}
    for name in ("WOS11967", "WOS46985", "WOS5736"):
        files |= wos_text_files([(f"Of {name}.", 5, 3)] * 12, f"{name}/")
    content = prepared(data(tmp_path, {"WebOfScience.zip": archive(files)}))
    assert content["all"] == [("Of WOS46985.", [["Medical", "Medical_3"]])] * 12


def test_text_files_without_a_folder_windows_lines_and_codes_with_zeros(tmp_path: Path) -> None:
    files = {name: text.replace("\n", "\r\n") for name, text in wos_text_files([("A b.", 0, 7)] * 3).items()}
    files["YL2.txt"] = "07\r\n 7\r\n7"
    content = prepared(data(tmp_path, files, min_documents=1))
    assert content["all"] == [("A b.", [["CS", "CS_7"]])] * 3


def test_empty_and_rare_lines_are_counted_and_left_out(tmp_path: Path) -> None:
    rows = [("Kept.", 0, 1)] * 10 + [("", 0, 1)] * 2 + [("Rare.", 1, 9)] * 4
    content = prepared(data(tmp_path, wos_text_files(rows)))
    assert content["summary"]["dropped"] == {"no text": 2, "label with fewer than 10 documents": 4}
    assert content["edges"] == [("ROOT", "CS"), ("CS", "CS_1")]


def test_white_space_is_no_text(tmp_path: Path) -> None:
    rows = [("Kept.", 0, 1)] * 10 + [(" \t\xa0 ", 0, 1), ("\u3000", 0, 1)]
    content = prepared(data(tmp_path, wos_text_files(rows)))
    assert content["summary"]["dropped"] == {"no text": 2}
    assert content["all"] == [("Kept.", [["CS", "CS_1"]])] * 10


def test_text_that_splits_lines_elsewhere_stays_one_line(tmp_path: Path) -> None:
    rows = [(f"One\x0bline\u2028with{mark}breaks.", 0, 1) for mark in ("\x0c", "\x85", "\r")]
    assert [text for text, _ in prepared(data(tmp_path, wos_text_files(rows), min_documents=1))["all"]] == [
        "One line with breaks."
    ] * 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"YL1.txt": "0\n1\n"}, "YL1.txt:3: 2 lines, but X.txt has 3; expected a line a document in each"),
        ({"YL2.txt": "0\n1\n2\n3\n4\n"}, "YL2.txt:4: 5 lines, but X.txt has 3"),
        ({"YL1.txt": ""}, "YL1.txt:1: 0 lines, but X.txt has 3"),
        ({"YL1.txt": "0\n7\n1\n"}, "YL1.txt:2: '7': expected a code of 0 to 6"),
        ({"YL1.txt": "0\n-1\n1\n"}, "YL1.txt:2: '-1': expected a code of 0 to 6"),
        ({"YL1.txt": "0\n1\nCS\n"}, "YL1.txt:3: 'CS': expected a code of 0 to 6"),
        ({"YL2.txt": "0\n\n1\n"}, "YL2.txt:2: '': expected a code, a whole number"),
        ({"YL2.txt": "0\n1.5\n1\n"}, "YL2.txt:2: '1.5': expected a code, a whole number"),
        ({"YL1.txt": "0\n1\n²\n"}, "YL1.txt:3: '²': expected a code of 0 to 6"),
        ({"YL2.txt": "²\n1\n1\n"}, "YL2.txt:1: '²': expected a code, a whole number"),
        ({"YL1.txt": "0\n\n1\n"}, "YL1.txt:2: '': expected a code of 0 to 6"),
        ({"X.txt": b"One.\nTwo.\n\xffThree.\n"}, "X.txt:3: invalid UTF-8 at byte 1 of the line"),
    ],
)
def test_bad_text_files_are_refused(changed: dict[str, str | bytes], message: str, tmp_path: Path) -> None:
    files = {**wos_text_files([("One.", 0, 1), ("Two.", 1, 2), ("Three.", 2, 3)], "")}
    folder = tmp_path / "wos/raw"
    refused(data(tmp_path, {**files, **changed}, min_documents=1), f"{folder}/{message}")


@pytest.mark.parametrize("gone", ["YL1.txt", "YL2.txt"])
def test_a_missing_code_file_is_named(gone: str, tmp_path: Path) -> None:
    files = wos_text_files([("One.", 0, 1)], "WOS46985/")
    del files[f"WOS46985/{gone}"]
    message = f"WOS46985/{gone}: no such file; expected X.txt, YL1.txt, YL2.txt in one folder"
    refused(data(tmp_path, files), message)


# ---- the published JSON lines, and what is none of the forms ----


def test_published_lines_are_read_train_before_test_whatever_min_documents_is(tmp_path: Path) -> None:
    content = prepared(data(tmp_path, {**published("wos", LABELS)}, min_documents=100))
    assert content["all"] == [
        (f"Number {i} tells of {low} within {top}.", [[top, low]]) for i in range(8) for top, low in LABELS
    ]
    assert content["summary"]["form"] == "wos_train.jsonl, wos_test.jsonl"
    assert content["summary"]["dropped"] == {}


SUBSETS = wos_text_files([("A b.", 0, 1)] * 12, "WOS11967/") | wos_text_files([("C d.", 1, 2)] * 12, "WOS5736/")


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"paper.pdf": "x"}, "found paper.pdf"),
        ({"bugs_train.jsonl": "", "bugs_test.jsonl": ""}, "found bugs_test.jsonl, bugs_train.jsonl"),
        (SUBSETS, "found WOS11967/X.txt, WOS11967/Y.txt, WOS11967/YL1.txt, WOS11967/YL2.txt, WOS5736/X.txt, "),
        (wos_text_files([("A b.", 0, 1)], "WOS5736/"), "found WOS5736/X.txt"),
        (
            {**published("wos", LABELS), "Data.xlsx": sheet(wos_rows())},
            "found Data.xlsx, wos_test.jsonl, wos_train.jsonl",
        ),
        (
            {**published("wos", LABELS), **wos_text_files([("A b.", 0, 1)])},
            "found X.txt, Y.txt, YL1.txt, YL2.txt, wos_test.jsonl, wos_train.jsonl",
        ),
        ({f"{i:02}.txt": "x" for i in range(12)}, "09.txt, .... Put"),
        ({"sub/x.txt": "x"}, "found sub/x.txt"),
    ],
)
def test_other_files_are_refused(files: dict[str, str | bytes], found: str, tmp_path: Path) -> None:
    """Among them subsets without the whole, and JSON lines beside another form."""
    refused(
        data(tmp_path, files),
        f"{tmp_path / 'wos/raw'}: expected one of: WebOfScience.zip, Meta-data/Data.xlsx, WOS46985/X.txt",
        found,
        "Put the official files there, or empty the folder to download them; https://data.mendeley.com/datasets/",
    )


def test_two_sheets_are_refused(tmp_path: Path) -> None:
    raw = tmp_path / "wos/raw"
    refused(
        data(tmp_path, {"Data.xlsx": sheet(wos_rows()), "Meta-data/Data.xls": b"x"}),
        f"{raw / 'Data.xlsx'}: there is {raw / 'Meta-data/Data.xls'} as well; keep one of the two",
    )


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    refused(
        data(tmp_path, {"WebOfScience.zip": wos_zip()[:-500]}),
        f"{tmp_path / 'wos/raw/WebOfScience.zip'}: not a whole zip archive",
        "fetch it again",
    )


@pytest.mark.parametrize("value", [0, -1, 2.5, "10", True])
def test_bad_min_documents_is_refused(value: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^dataset.min_documents=.*: expected an integer >= 1"):
        data(tmp_path, {}, min_documents=value)
