"""Linux Bugs: the tracker's tab-separated export, read as pandas reads it, and the published JSON lines."""

from __future__ import annotations

import gzip
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raw import BUGS_HEADING, BUGS_NULLS, bugs_rows, module, prepared, published, put, refused, table

from ptmt_lightning.data.benchmarks.bugs import BugsDataModule, Report, clean, read_reports

TSV = "linux_bugs.csv"
LABELS = [("Drivers", "Drivers_Video"), ("Drivers", "Drivers_Network"), ("ACPI", "ACPI_Fans")]
FIELDS = st.text(st.sampled_from("ab \t\n\"',é\u2019"), max_size=6)
# Few values, so that copies, values that are none, and rare labels come up.
REPORTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c d", "NaN", "nan "]),
        st.sampled_from(["one", "two\nthree", "", "null", "four\t4", 'say "no"']),
        st.sampled_from(["low", "high", "N/A"]),
        st.sampled_from(["Drivers", "Platform Specific/Hardware", "IO/Storage", "None"]),
        st.sampled_from(["Network", "Video(DRI - non Intel)", "Other", "Drivers", "IO/Storage", ""]),
    ),
    min_size=1,
    max_size=30,
)


def data(tmp_path: Path, files: dict[str, Any], **changes: Any) -> Any:
    return module(BugsDataModule, put(tmp_path / "bugs", files), **{"min_documents": 5} | changes)


def cleaned_by_pandas(path: Path, min_documents: int) -> list[tuple[str, list[list[str]]]]:
    """The recipe of the published figures, in pandas' own words."""
    frame = pd.read_csv(path, sep="\t").dropna(subset=["message"])
    frame = frame.drop_duplicates(subset=["message", "title"], keep=False).dropna()
    for column in ("product", "component"):
        frame[column] = frame[column].astype(str).str.replace(r"[^\w]+", "-", regex=True).str.strip("-")
    frame["both"] = frame["product"] + "_" + frame["component"]
    labels = frame[["product", "component", "both"]]
    for column in ("product", "component"):
        counts = labels[column].value_counts()
        labels = labels.replace(counts[counts < min_documents].index, np.nan).dropna()
    frame = frame.loc[labels.index]
    return [
        (f"{row.title} {row.message}", [[row.product, f"{row.product}_{row.component}"]])
        for row in frame[BUGS_HEADING].rename(columns=str).itertuples(index=False)
    ]


# ---- the tab-separated export ----


@pytest.mark.parametrize("name", ["linux_bugs.csv", "linux_bugs.csv.gz", "all_linux_bugs.csv"])
def test_the_export(name: str, tmp_path: Path) -> None:
    content = table(bugs_rows()).encode()
    bugs = data(tmp_path, {name: gzip.compress(content) if name.endswith(".gz") else content})
    found = prepared(bugs)
    expected = [
        (
            f'Machine {i} stops After "step {i}" of\t{low}\nit stops.',
            [[product, f"{product}_{component}"]],
        )
        for i in range(12)
        for low, product, component in [
            ("Video(DRI - non Intel)", "Drivers", "Video-DRI-non-Intel"),
            ("Network", "Drivers", "Network"),
            ("x86-64", "Platform-Specific-Hardware", "x86-64"),
        ]
    ]
    assert found["all"] == expected
    assert found["edges"] == [
        ("ROOT", "Drivers"),
        ("ROOT", "Platform-Specific-Hardware"),
        ("Drivers", "Drivers_Network"),
        ("Drivers", "Drivers_Video-DRI-non-Intel"),
        ("Platform-Specific-Hardware", "Platform-Specific-Hardware_x86-64"),
    ]
    assert found["summary"] == {
        "documents": {"all": 36},
        "mean_characters": pytest.approx(sum(len(text) for text, _ in expected) / 36),
        "form": name,
        "dropped": {
            "no message": len(BUGS_NULLS),
            "same title and message as another": 2,
            "a field without a value": 2,
            "named as a product with fewer than 5 documents": 2,
            "named as a component with fewer than 5 documents": 1,
        },
    }
    assert bugs.taxonomy.level_sizes == (2, 3)


def test_the_export_as_pandas_cleans_it(tmp_path: Path) -> None:
    bugs = data(tmp_path, {TSV: table(bugs_rows())})
    assert prepared(bugs)["all"] == cleaned_by_pandas(bugs.folder / "raw" / TSV, 5)


def test_a_rare_name_goes_wherever_it_occurs() -> None:
    products = ["Drivers"] * 3 + ["Other"] * 1 + ["Drivers"] * 3
    components = ["Network"] * 3 + ["Network"] * 1 + ["Other"] * 3
    reports = [
        Report(f"title {i}", "words", "low", product, component, f"line {i}")
        for i, (product, component) in enumerate(zip(products, components, strict=True))
    ]
    dropped: Counter[str] = Counter()
    kept = clean(reports, 2, dropped)
    assert [report.title for report in kept] == ["title 0", "title 1", "title 2"]
    assert dropped == {"named as a product with fewer than 2 documents": 4}  # one of them, and three components


@settings(max_examples=60)
@given(rows=REPORTS, min_documents=st.integers(1, 4))
def test_any_export_is_cleaned_as_pandas_does(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], min_documents: int
) -> None:
    path = tmp_path_factory.mktemp("bugs") / TSV
    path.write_text(table(rows))
    dropped: Counter[str] = Counter()
    kept = clean(list(read_reports(path)), min_documents, dropped)

    def node(name: str) -> str:
        return "-".join(re.findall(r"\w+", name))

    documents = [
        (f"{r.title} {r.message}", [[node(r.product), f"{node(r.product)}_{node(r.component)}"]]) for r in kept
    ]
    assert documents == cleaned_by_pandas(path, min_documents)
    assert dropped.total() == len(rows) - len(kept)
    assert all(dropped.values())


@settings(max_examples=60)
@given(rows=st.lists(st.lists(FIELDS, min_size=5, max_size=5).filter(any), min_size=1, max_size=8))
def test_any_fields_are_read_as_pandas_reads_them(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]
) -> None:
    """Tabs, quotes and new lines within fields; ``where`` is the line at which a row begins."""
    path = tmp_path_factory.mktemp("bugs") / TSV
    path.write_text(table(rows))
    reports = list(read_reports(path))
    reference = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    assert [report[:5] for report in reports] == list(reference.itertuples(index=False, name=None))
    assert [list(report[:5]) for report in reports] == rows
    starts = [2 + sum(table([row]).count("\n") - 1 for row in rows[:number]) for number in range(len(rows))]
    assert [report.where for report in reports] == [f"{path}:{start}" for start in starts]


def test_columns_are_found_by_name_and_others_ignored(tmp_path: Path) -> None:
    heading = ["id", "component", "product", "importance", "message", "title"]
    rows = [[str(i), "Fans", "ACPI", "low", f"It is loud, {i}.", "Noise"] for i in range(5)]
    found = prepared(data(tmp_path, {TSV: table(rows, heading)}))
    assert found["all"] == [(f"Noise It is loud, {i}.", [["ACPI", "ACPI_Fans"]]) for i in range(5)]


@pytest.mark.parametrize("change", ["byte order mark", "windows lines", "blank lines", "no last new line"])
def test_harmless_variants_read_the_same(change: str, tmp_path: Path) -> None:
    content = table([[f"Fan {i}", "Too loud.", "low", "ACPI", "Fans"] for i in range(5)])
    changed = {
        "byte order mark": "\ufeff" + content,
        "windows lines": content.replace("\n", "\r\n"),
        "blank lines": content.replace("\n", "\n\n"),
        "no last new line": content.rstrip(),
    }[change]
    found = prepared(data(tmp_path, {TSV: changed}))
    assert found["all"] == [(f"Fan {i} Too loud.", [["ACPI", "ACPI_Fans"]]) for i in range(5)]


@pytest.mark.parametrize("null", BUGS_NULLS)
@pytest.mark.parametrize("column", range(5))
def test_a_report_with_any_field_without_value_goes(column: int, null: str, tmp_path: Path) -> None:
    row = ["Fan", "Too loud.", "low", "ACPI", "Fans"]
    row[column] = null
    kept = [[f"Disk {i}", "Too slow.", "low", "ACPI", "Fans"] for i in range(5)]
    summary = prepared(data(tmp_path, {TSV: table([*kept, row])}))["summary"]
    assert summary["documents"] == {"all": 5}
    assert summary["dropped"] == {"no message" if column == 1 else "a field without a value": 1}


def test_all_copies_of_a_report_go_whatever_their_labels() -> None:
    reports = [
        Report("Fan", "Too loud.", "low", "ACPI", "Fans", "1"),
        Report("Fan", "Too loud.", "high", "Drivers", "Other", "2"),
        Report("Fan", "Too loud!", "low", "ACPI", "Fans", "3"),
        Report("Fans", "Too loud.", "low", "ACPI", "Fans", "4"),
    ]
    assert clean(reports, 1, Counter()) == reports[2:]


def test_components_are_counted_by_name_over_all_products_that_stay() -> None:
    """Three of ``Other`` in each of two products are six; those of a rare product do not count."""
    reports = [
        Report(f"Title {i}", "Text.", "low", product, component, str(i))
        for i, (product, component) in enumerate(
            [("A", "Other")] * 3 + [("B/", "Other")] * 3 + [("A", "Net")] * 5 + [("B", "Net ")] + [("B", "Disk")] * 2
            + [("C", "Disk")] * 4
        )
    ]  # fmt: skip
    dropped: Counter[str] = Counter()
    kept = clean(reports, 6, dropped)
    assert Counter((report.product, report.component) for report in kept) == {
        ("A", "Other"): 3, ("B/", "Other"): 3, ("A", "Net"): 5, ("B", "Net "): 1,
    }  # fmt: skip
    assert dropped == {
        "named as a product with fewer than 6 documents": 4, "named as a component with fewer than 6 documents": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            table([], ["title", "message", "component"]),
            "1: no column 'importance', 'product', found ['title', 'message', 'component']; expected title, message, "
            "importance, product, component, separated by tabs",
        ),
        (table([]).replace("\t", ","), "1: no column 'title', 'message', 'importance', 'product', 'component', found"),
        # Not compared to its end: for an empty file the heading is shown as ['\\x00end'] (reported).
        ("", "1: no column 'title', 'message', 'importance', 'product', 'component', found ["),
        (table([["a", "b", "c", "d", "e"], ["a", "b", "c", "d"]]), "3: 4 field(s), expected 5 separated by tabs"),
        (table([["a", "b\nb\n\nb", "c", "d", "e"], ["a"] * 6]), "6: 6 field(s), expected 5 separated by tabs"),
        (table([["a", "b\nb", "c", "d", "e"], ["a\na", "b"]]), "4: 2 field(s), expected 5 separated by tabs"),
        (
            table([["a", "b", "c", "d", "e"]]) + 'a\t"b and on\nand on\n',
            "3: a quoted field of this row does not end; fetch the file again",
        ),
        (
            table([["a", "b", "c", "d", "e"]]) + 'a\tb\tc\td\t"e and on',
            "3: a quoted field of this row does not end; fetch the file again",
        ),
        (table([["a", "b", "c", "d", "e"]]) + "a\tb\rb\tc\td\te\n", "3: new-line character seen in unquoted field"),
    ],
    ids=[
        "columns",
        "commas",
        "empty",
        "short row",
        "long row",
        "row over lines",
        "cut off in a field",
        "cut off in the last field",
        "bare carriage return",
    ],
)
def test_bad_exports_are_refused_with_the_line(content: str, message: str, tmp_path: Path) -> None:
    refused(data(tmp_path, {TSV: content}), f"{tmp_path / 'bugs/raw' / TSV}:{message}")


@pytest.mark.parametrize("good", [1, 5000])
@pytest.mark.parametrize("name", [TSV, f"{TSV}.gz"])
def test_an_export_that_is_not_utf8_is_refused_with_the_line(name: str, good: int, tmp_path: Path) -> None:
    """However far into the file, and within a quoted field over two lines."""
    content = table([["a", "b", "c", "d", "e"]] * good).encode() + b'x\t"one\ncaf\xe9"\tc\td\te\n'
    content = gzip.compress(content) if name.endswith(".gz") else content
    refused(
        data(tmp_path, {name: content}),
        f"{tmp_path / 'bugs/raw' / name}:{good + 3}: invalid UTF-8 at byte 4 of the line; save the file as UTF-8",
    )


def test_white_space_in_both_title_and_message_is_no_text(tmp_path: Path) -> None:
    rows = [[" ", "  \n", "low", "ACPI", "Fans"]] + [[f"Fan {i}", " ", "low", "ACPI", "Fans"] for i in range(5)]
    found = prepared(data(tmp_path, {TSV: table(rows)}))
    assert found["all"] == [(f"Fan {i}  ", [["ACPI", "ACPI_Fans"]]) for i in range(5)]
    assert found["summary"]["dropped"] == {"no text": 1}


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-200], lambda c: c[:-8] + b"\0" * 8, lambda c: c[10:], lambda c: c[:15]]
)
def test_damaged_gzip_is_refused(damage: Any, tmp_path: Path) -> None:
    content = table([[f"Fan {i * 7919}", f"Too loud by {i * i}.", "low", "ACPI", "Fans"] for i in range(2000)])
    bugs = data(tmp_path, {f"{TSV}.gz": damage(gzip.compress(content.encode()))})
    refused(bugs, f"{TSV}.gz: damaged or truncated gzip after line ", "copy or download the file again")


# ---- the published JSON lines, and what is none of the forms ----


def test_published_lines_are_read_as_they_are(tmp_path: Path) -> None:
    """Not cleaned again: neither copies nor rare labels go."""
    files = published("bugs", LABELS)
    files["bugs_test.jsonl"] += files["bugs_train.jsonl"].splitlines()[0] + "\n"
    found = prepared(data(tmp_path, {**files}, min_documents=100))
    texts = [(f"Number {i} tells of {low} within {top}.", [[top, low]]) for i in range(8) for top, low in LABELS]
    assert found["all"] == [*texts, texts[0]]
    assert found["summary"]["dropped"] == {}
    assert found["summary"]["form"] == "bugs_train.jsonl, bugs_test.jsonl"


def test_two_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bugs/raw" / TSV
    bugs = data(tmp_path, {TSV: "", f"{TSV}.gz": b""})
    refused(bugs, f"{path}: there is {path}.gz as well; keep one of the two")


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({**published("bugs", LABELS), TSV: table(bugs_rows())}, f"bugs_test.jsonl, bugs_train.jsonl, {TSV}"),
        ({"linux_bugs.tsv": ""}, "linux_bugs.tsv"),
        (published("wos", LABELS), "wos_test.jsonl, wos_train.jsonl"),
    ],
    ids=["both forms", "other name", "another benchmark"],
)
def test_other_files_are_refused(files: dict[str, str | bytes], found: str, tmp_path: Path) -> None:
    refused(
        data(tmp_path, files),
        f"{tmp_path / 'bugs/raw'}: expected one of: bugs_train.jsonl with bugs_test.jsonl; linux_bugs.csv (or "
        f".csv.gz); found {found}. Put the official files there, or empty the folder to download them; "
        "https://zenodo.org/records/7319519 has them",
    )


@pytest.mark.parametrize("value", [0, -1, 2.5, "10"])
def test_bad_min_documents_is_refused(value: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^dataset.min_documents=.*: expected an integer >= 1"):
        data(tmp_path, {}, min_documents=value)


def test_own_names_of_the_data_set_do_not_matter(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for part in ("train", "test"):
        (raw / f"bugs_{part}.jsonl").write_text('{"text": "It stalls.", "labels": ["Timers", "Timers_Other"]}\n' * 8)
    data = BugsDataModule(name="mine", path=str(tmp_path), batch_size=1, cache_dir=str(tmp_path / "cache"))
    data.prepare_data()
    assert sum(data.split_sizes().values()) == 16


@pytest.mark.parametrize("heading", ["title\rmessage\r", 'title\tmessage\timportance\tproduct\tcomponent\t"x\n'])
def test_bad_headings_are_refused(heading: str, tmp_path: Path) -> None:
    (tmp_path / "linux_bugs.csv").write_text(heading, newline="")
    with pytest.raises(ValueError, match=r"linux_bugs\.csv:1: "):
        list(read_reports(tmp_path / "linux_bugs.csv"))
