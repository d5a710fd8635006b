"""Web of Science, WOS-46985 (Kowsari et al. 2017): abstracts, seven domains and their areas, one path a document.

Zangari et al. (2024), whose protocol the paper follows, name nodes by the sheet's ``Domain`` and ``area`` and drop
areas with fewer than ten documents. The text files have numbers instead of names: 134 codes, some of which stand for
two areas.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar
from zipfile import BadZipFile

import pandas as pd
from python_calamine import CalamineError

from ptmt_lightning.data.benchmarks.base import FoldedDataModule, Published, Raw
from ptmt_lightning.data.benchmarks.download import Source
from ptmt_lightning.data.benchmarks.prepared import Labelled, node_name, read_jsonl, without_rare
from ptmt_lightning.data.document import read_lines
from ptmt_lightning.utils.checks import check_range

_DOMAINS = ("CS", "ECE", "Psychology", "MAE", "Civil", "Medical", "biochemistry")  # in the order of their codes
_COLUMNS = ("Domain", "area", "Abstract")
_SUBSETS = ("WOS11967", "WOS5736")
_TEXT_FILES = ("X.txt", "YL1.txt", "YL2.txt")


class WOSDataModule(FoldedDataModule):
    """The Web of Science benchmark; see :class:`~ptmt_lightning.data.benchmarks.base.FoldedDataModule`.

    Args:
        min_documents: areas with fewer documents are left out, and their documents with them.
        shared: see :class:`~ptmt_lightning.data.benchmarks.base.BenchmarkDataModule`.
    """

    short_name = "wos"
    source = Source(
        page="https://data.mendeley.com/datasets/9rw3vkcfy4/6",
        files={
            "WebOfScience.zip": "https://data.mendeley.com/public-files/datasets/9rw3vkcfy4/files/"
            "c9ea673d-5542-44c0-ab7b-f1311f7d61df/file_downloaded"
        },
    )
    published = Published(46_960, (7, 138), 1376, 31_306, 6_262, 15_654)
    known_deviations: ClassVar = {
        "train": (25_044, "the paper's 31,306 still contain the 6,262 for validation"),
        "labels a level": ("7-134", "the text files number 134 areas; by its names, the sheet has 138"),
        "labels overall": (141, "7 + 134 in the text files"),
    }

    def __init__(self, *, min_documents: int = 10, **shared: Any) -> None:
        super().__init__(**shared)
        check_range("dataset.min_documents", min_documents, 1, integer=True)
        self.min_documents = min_documents

    def settings(self) -> dict[str, Any]:
        """Return the setting that changes the prepared documents, ``min_documents``."""
        return {"min_documents": self.min_documents}

    def read_raw(self, files: Sequence[Path]) -> Raw:
        """Read the published JSON lines, the sheet or, where neither is there, the text files."""
        dropped: Counter[str] = Counter()
        sheet, published = self.only_file(files, "Data.xlsx", "Data.xls"), self.jsonl_files(files)
        text_file = self.only_file([path for path in files if path.parent.name not in _SUBSETS], "X.txt")
        if bool(sheet or text_file) == bool(published):
            raise self.not_found(
                files,
                "one of: WebOfScience.zip, Meta-data/Data.xlsx, WOS46985/X.txt with YL1.txt and YL2.txt, "
                "wos_train.jsonl with wos_test.jsonl",
            )
        if published:
            return Raw(", ".join(path.name for path in published), {"all": read_jsonl(published)}, dropped)
        # The archive holds both; the sheet comes first, because the published figures are those of the sheet.
        if sheet:
            form, documents = f"the sheet {sheet}", read_sheet(sheet)
        else:
            assert text_file is not None
            form, documents = f"the text files in {text_file.parent}", read_text_files(text_file.parent)
        return Raw(form, {"all": without_rare(list(documents), self.min_documents, dropped)}, dropped)


def read_sheet(path: Path) -> Iterator[Labelled]:
    """Yield the documents of the sheet ``Data.xlsx`` or ``Data.xls``, one a row.

    Raises:
        ValueError: the file is not a workbook, a column is missing, or a row has no domain or no area.
    """
    try:
        sheet = pd.read_excel(path, engine="calamine", dtype=str, keep_default_na=False)
    except (CalamineError, BadZipFile, ValueError) as error:
        raise ValueError(f"{path}: not an Excel workbook ({error}); delete it and fetch it again") from None
    sheet.columns = [str(column).strip() for column in sheet.columns]
    missing = [column for column in _COLUMNS if column not in sheet.columns]
    if missing:
        raise ValueError(
            f"{path}:1: no column {', '.join(map(repr, missing))}, found {list(sheet.columns)}; "
            "expected Y1, Y2, Y, Domain, area, keywords, Abstract"
        )
    for row, (domain, area, abstract) in enumerate(sheet[list(_COLUMNS)].itertuples(index=False), start=2):
        names = node_name(domain), node_name(domain, area)
        if not names[0] or not node_name(area):
            raise ValueError(f"{path}:{row}: Domain={domain!r}, area={area!r}: expected a name in both; fill it in")
        yield Labelled(" ".join(abstract.split()), [list(names)], f"{path}:{row}")


def read_text_files(folder: Path) -> Iterator[Labelled]:
    """Yield the documents of ``X.txt`` with the labels of ``YL1.txt`` and ``YL2.txt``; areas are named by their codes.

    Raises:
        ValueError: a file is missing, the files differ in length, or a label is not a code.
    """
    for name in _TEXT_FILES:
        if not (folder / name).is_file():
            raise ValueError(f"{folder / name}: no such file; expected {', '.join(_TEXT_FILES)} in one folder")
    texts, domains, areas = ([line.strip() for _, line in read_lines(folder / name)] for name in _TEXT_FILES)
    for name, rows in zip(_TEXT_FILES[1:], (domains, areas), strict=True):
        if len(rows) != len(texts):
            raise ValueError(
                f"{folder / name}:{min(len(rows), len(texts)) + 1}: {len(rows)} lines, but X.txt has {len(texts)}; "
                "expected a line a document in each; fetch the files again"
            )
    for number, (text, domain, area) in enumerate(zip(texts, domains, areas, strict=True), start=1):
        if not (domain.isdecimal() and int(domain) < len(_DOMAINS)):
            raise ValueError(f"{folder / 'YL1.txt'}:{number}: {domain!r}: expected a code of 0 to {len(_DOMAINS) - 1}")
        if not area.isdecimal():
            raise ValueError(f"{folder / 'YL2.txt'}:{number}: {area!r}: expected a code, a whole number")
        top = _DOMAINS[int(domain)]
        yield Labelled(" ".join(text.split()), [[top, f"{top}_{int(area)}"]], f"{folder / 'X.txt'}:{number}")
