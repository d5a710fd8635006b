"""Small raw files of each benchmark in its official form, and what tests of their readers share."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import openpyxl
import pytest
from data.benchmarks.raw_topics import NYT_LABELS, NYT_TAXONOMY, rcv1_files, topic_files

from ptmt_lightning.data.benchmarks.amazon import AmazonDataModule
from ptmt_lightning.data.benchmarks.base import BenchmarkDataModule
from ptmt_lightning.data.benchmarks.bgc import BGCDataModule
from ptmt_lightning.data.benchmarks.bugs import BugsDataModule
from ptmt_lightning.data.benchmarks.nyt import NYTDataModule
from ptmt_lightning.data.benchmarks.rcv1 import RCV1DataModule
from ptmt_lightning.data.benchmarks.wos import WOSDataModule

# ---- data modules ----


def put(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write raw files of a benchmark; ``folder`` is its ``dataset.path``."""
    for name, content in files.items():
        path = folder / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def module(kind: type[BenchmarkDataModule], folder: Path, **changes: Any) -> Any:
    """A data module over ``folder``, with its cache beside it."""
    name = kind.__name__.removesuffix("DataModule").lower()
    settings = {"name": name, "path": str(folder), "batch_size": 4, "cache_dir": str(folder.parent / "cache")}
    return kind(**settings | changes)


def prepared(data: BenchmarkDataModule) -> dict[str, Any]:
    """Prepare, and read all that is in the prepared folder: text and paths of each document, edges, summary."""
    data.prepare_data()
    [folder] = data.folder.glob("prepared-*")
    content: dict[str, Any] = {"summary": json.loads((folder / "prepared.json").read_text())}
    content["edges"] = [tuple(line.split("\t")) for line in (folder / "taxonomy.tsv").read_text().splitlines()]
    for path in folder.glob("*.jsonl"):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        content[path.stem] = [(record["text"], record["labels"]) for record in records]
    return content


def refused(data: BenchmarkDataModule, *messages: str) -> None:
    """``prepare_data`` fails with these words and leaves nothing."""
    with pytest.raises(ValueError, match=re.escape(messages[0])) as error:
        data.prepare_data()
    for message in messages[1:]:
        assert message in str(error.value)
    assert not [*data.folder.glob("prepared-*"), *data.folder.rglob("*.tmp"), *data.cache_dir.glob("*")]


# ---- forms that several share ----


def jsonl(records: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def archive(files: Mapping[str, str | bytes]) -> bytes:
    """A zip archive."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in files.items():
            file.writestr(name, text)
    return content.getvalue()


def published(name: str, labels: Sequence[tuple[str, str]], each: int = 8) -> dict[str, str]:
    """The published JSON lines of a folded benchmark, one label after the other, a third of them in ``test``."""
    records = [
        {"text": f"Number {i} tells of {low} within {top}.", "labels": [top, low]}
        for i in range(each)
        for top, low in labels
    ]
    cut = len(records) * 2 // 3
    return {f"{name}_train.jsonl": jsonl(records[:cut]), f"{name}_test.jsonl": jsonl(records[cut:])}


# ---- Web of Science ----

WOS_HEADING = ["Y1", "Y2", "Y", "Domain", "area", "keywords", "Abstract"]
WOS_AREAS = {  # as the sheet spells them, with the number of their documents
    ("CS ", " Machine learning  "): 12,
    ("Medical   ", "Depression"): 11,
    ("Psychology  ", "  Depression  "): 10,
    ("Medical", "Schizophrenia "): 10,
    ("Psychology", "Schizophrenia"): 10,
    (" Medical ", "Alzheimer's Disease   "): 10,
    ("Civil ", "Green  Building"): 9,
}
WOS_NODES = {
    ("CS ", " Machine learning  "): ["CS", "CS_Machine-learning"],
    ("Medical   ", "Depression"): ["Medical", "Medical_Depression"],
    ("Psychology  ", "  Depression  "): ["Psychology", "Psychology_Depression"],
    ("Medical", "Schizophrenia "): ["Medical", "Medical_Schizophrenia"],
    ("Psychology", "Schizophrenia"): ["Psychology", "Psychology_Schizophrenia"],
    (" Medical ", "Alzheimer's Disease   "): ["Medical", "Medical_Alzheimers-Disease"],
    ("Civil ", "Green  Building"): ["Civil", "Civil_Green-Building"],
}


def wos_rows() -> list[list[Any]]:
    """Rows of the sheet, areas in turn; 63 documents of areas with ten or more, 9 of one with fewer."""
    return [
        [1, 2, 3, *names, "one; two", f"  Trial {i} is about{names[1].lower()}, we report\n{i % 4}  effects. "]
        for i in range(12)
        for names, count in WOS_AREAS.items()
        if i < count
    ]


def sheet(rows: Sequence[Sequence[Any]], heading: Sequence[str] = WOS_HEADING) -> bytes:
    """An Excel workbook."""
    book = openpyxl.Workbook(write_only=True)
    page = book.create_sheet("all")
    for row in [heading, *rows]:
        page.append(list(row))
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def wos_text_files(rows: Sequence[tuple[str, int, int]], folder: str = "") -> dict[str, str]:
    """``X.txt`` and its codes; rows are (text, domain, area)."""
    columns = {"X": 0, "YL1": 1, "YL2": 2, "Y": 2}
    return {f"{folder}{name}.txt": "".join(f"{row[column]}\n" for row in rows) for name, column in columns.items()}


def wos_zip() -> bytes:
    """``WebOfScience.zip``: the sheet, all documents as text files, and the two subsets."""
    files: dict[str, str | bytes] = {"Meta-data/Data.xlsx": sheet(wos_rows()), "ReadMe.txt": "Terms of use.\n"}
    for name, size in (("WOS11967", 20), ("WOS46985", 40), ("WOS5736", 12)):
        rows = [(f"{name} has line {i} here.", i % 2, 7 + i % 2) for i in range(size)]
        files |= wos_text_files(rows, f"{name}/")
    return archive(files)


# ---- Blurb Genre Collection ----

BGC_HIERARCHY = (
    "Fiction\tMystery & Suspense\n"
    "Fiction\tRomance\n"
    "Mystery & Suspense\tCrime Mysteries\n"
    "Crime Mysteries\tNoir Mysteries\n"
    "Nonfiction\tCooking\n"
    "Cooking\tRegional & Ethnic Cooking\n"
    "Children\u2019s Books\tStep Into Reading\n"
    "Poetry\n"
)
BGC_PARENTS = {  # by the names of nodes
    "Mystery-Suspense": "Fiction", "Romance": "Fiction", "Crime-Mysteries": "Mystery-Suspense",
    "Noir-Mysteries": "Crime-Mysteries", "Cooking": "Nonfiction", "Regional-Ethnic-Cooking": "Cooking",
    "Step-Into-Reading": "Childrens-Books",
}  # fmt: skip
BGC_TOPICS = {  # node: level as in the tag, topic as the files spell it
    node: (level, topic)
    for level, topic, node in [
        (0, "Fiction", "Fiction"), (0, "Nonfiction", "Nonfiction"), (0, "Poetry", "Poetry"),
        (0, "Children\u2019s Books", "Childrens-Books"), (1, "Mystery &amp; Suspense", "Mystery-Suspense"),
        (1, "Romance", "Romance"), (1, "Cooking", "Cooking"), (1, "Step Into Reading", "Step-Into-Reading"),
        (2, "Crime Mysteries", "Crime-Mysteries"), (2, "Regional & Ethnic Cooking", "Regional-Ethnic-Cooking"),
        (3, "Noir Mysteries", "Noir-Mysteries"),
    ]
}  # fmt: skip


def book(title: str, body: str, topics: str) -> str:
    """A book as the files have it, a tag a line."""
    return (
        '<book date="2018-08-18" xml:lang="en">\n'
        f"<title>{title}</title>\n<body>{body}</body>\n<copyright>(c) Someone</copyright>\n<metadata>\n"
        f"<topics>{topics}</topics>\n<author>Some One</author>\n<published>May 01, 2001 </published>\n"
        "<page_num>90 Pages</page_num>\n<isbn>9780000000000</isbn>\n<url>https://example.org/?a=1&b=2</url>\n"
        "</metadata>\n</book>\n"
    )


def topic_tags(nodes: Iterable[str]) -> str:
    return "".join(f"<d{level}>{topic}</d{level}>" for level, topic in (BGC_TOPICS[node] for node in nodes))


class Book(NamedTuple):
    """A book in the file, and the document that it is."""

    raw: str
    text: str
    paths: list[list[str]]


BGC_BOOKS = [
    Book(
        book(
            "Salt & Sea",
            "Ann &amp; Bo cook at 5 < 6 o&#8217;clock.",
            "<d0>Nonfiction</d0><d1>Cooking</d1><d2>Regional & Ethnic Cooking</d2>",
        ),
        "Salt & Sea. Ann & Bo cook at 5 < 6 o\u2019clock.",
        [["Nonfiction", "Cooking", "Regional-Ethnic-Cooking"]],
    ),
    # Unordered, two paths, one of which ends at the second level.
    Book(
        book(
            "Night Train",
            "A body rides along.\nNobody sleeps.",
            "<d0>Fiction</d0><d1>Romance</d1><d1>Mystery & Suspense</d1><d2>Crime Mysteries</d2>",
        ),
        "Night Train. A body rides along.\nNobody sleeps.",
        [["Fiction", "Romance"], ["Fiction", "Mystery-Suspense", "Crime-Mysteries"]],
    ),
    Book(
        book(" Rain Poems ", " Short lines. ", "<d0>Poetry</d0>"),
        "Rain Poems. Short lines.",
        [["Poetry"]],
    ),
    # Nothing between the top and the lowest level, another top without children of its own here.
    Book(
        book("Read It", "A hen counts to four.", "<d3>Noir Mysteries</d3><d0>Children\u2019s Books</d0>"),
        "Read It. A hen counts to four.",
        [["Childrens-Books"], ["Fiction", "Mystery-Suspense", "Crime-Mysteries", "Noir-Mysteries"]],
    ),
]


def bgc_files(train: str | None = None, **others: str) -> dict[str, str]:
    """The four files: all books in ``train``, three in ``dev`` and two in ``test``."""
    raw = [book.raw for book in BGC_BOOKS]
    return {
        "BlurbGenreCollection_EN_train.txt": "".join(raw) if train is None else train,
        "BlurbGenreCollection_EN_dev.txt": others.get("dev", "".join(raw[:3])),
        "BlurbGenreCollection_EN_test.txt": others.get("test", "".join(raw[2:])),
        "hierarchy.txt": others.get("hierarchy", BGC_HIERARCHY),
    }


# ---- Linux Bugs ----

BUGS_HEADING = ["title", "message", "importance", "product", "component"]
BUGS_NULLS = ["", "NaN", "None", "null", "N/A"]


def table(rows: Sequence[Sequence[str]], heading: Sequence[str] = BUGS_HEADING) -> str:
    """The tracker's export: separated by tabs, quoted where needed."""
    content = io.StringIO(newline="")
    csv.writer(content, delimiter="\t", lineterminator="\n").writerows([heading, *rows])
    return content.getvalue()


def bugs_rows() -> list[list[str]]:
    """36 reports that stay with five or more a label, and twelve that go."""
    labels = [("Drivers", "Video(DRI - non Intel)"), ("Drivers", "Network"), ("Platform Specific/Hardware", "x86-64")]
    rows = [
        [f"Machine {i} stops", f'After "step {i}" of\t{low}\nit stops.', "normal", top, low]
        for i in range(12)
        for top, low in labels
    ]
    rows[4:4] = [["No words", null, "low", "Drivers", "Network"] for null in BUGS_NULLS]  # no message
    rows += [["Twice here", "The same words.", "high", "Drivers", "Network"]] * 2  # copies, all of which go
    rows += [["NaN", f"Line {i} has no title.", "high", "Drivers", "Network"] for i in range(2)]
    rows += [[f"Fan {i}", "Too loud.", "high", "ACPI", "Fans"] for i in range(2)]  # rare product
    rows += [["Disk", "Too slow.", "high", "Drivers", "Disks"]]  # rare component
    return rows


# ---- Amazon 5x5 ----

AMAZON_LABELS = [
    (top, f"{top}_{low}")
    for top, lows in {
        "video-games": ("pc", "xbox"), "electronics": ("headphones",), "musical-instruments": ("guitars",),
        "grocery-and-gourmet-food": ("candy", "beverages"), "arts-crafts-and-sewing": ("sewing",),
    }.items()
    for low in lows
]  # fmt: skip
AMAZON_CATEGORIES = {  # of each domain two labels, each with one category as Amazon writes it
    "Video_Games": {"pc": "PC", "xbox": "Xbox 360"},
    "Electronics": {"camera-photo": "Camera &amp; Photo", "headphones": "Headphones"},
    "Grocery_and_Gourmet_Food": {"beverages": "Beverages", "herbs-spices-seasonings": "Herbs, Spices &amp; Seasonings"},
    "Arts_Crafts_and_Sewing": {"sewing": "Sewing", "crafting": "Crafting"},
    "Musical_Instruments": {"guitars": "Bass Guitars", "studio-recording": "Live Sound &amp; Stage"},
}


def packed(records: Iterable[Mapping[str, Any]]) -> bytes:
    return gzip.compress(jsonl(records).encode())


def raw_reviews(**changed: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> dict[str, bytes]:
    """Reviews and products of the five domains, a review a label; or for some domains those given."""
    files = {}
    for domain, categories in AMAZON_CATEGORIES.items():
        products = [{"asin": label, "category": ["Shop", name]} for label, name in categories.items()]
        reviews = [{"asin": label, "summary": "Fine", "reviewText": f"{label} " * 110} for label in categories]
        reviews, products = changed.get(domain, (reviews, products))
        files |= {f"{domain}.json.gz": packed(reviews), f"meta_{domain}.json.gz": packed(products)}
    return files


# ---- each in its official form ----

KINDS: dict[str, type[BenchmarkDataModule]] = {
    "wos": WOSDataModule, "bgc": BGCDataModule, "bugs": BugsDataModule, "amazon": AmazonDataModule,
    "rcv1": RCV1DataModule, "nyt": NYTDataModule,
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {"bugs": {"min_documents": 5}}


def official(name: str) -> dict[str, str | bytes]:
    """Raw files that read without error."""
    if name == "wos":
        return {"WebOfScience.zip": wos_zip()}
    if name == "bgc":
        return {"blurbgenrecollectionen.zip": archive(bgc_files())}
    if name == "rcv1":
        return rcv1_files()
    if name == "nyt":
        return {**topic_files("nyt", NYT_TAXONOMY, NYT_LABELS)}
    if name == "bugs":
        return {"linux_bugs.csv": table(bugs_rows())}
    return {**published("amazon", AMAZON_LABELS)}


def benchmark(name: str, tmp_path: Path, **changes: Any) -> Any:
    """The data module of a benchmark over its official files; again over the same where they are there."""
    folder = tmp_path / name
    if not folder.exists():
        put(folder, official(name))
    return module(KINDS[name], folder, **{"name": name} | SETTINGS.get(name, {}) | changes)
