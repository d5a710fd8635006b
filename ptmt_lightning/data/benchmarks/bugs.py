"""Linux Bugs (Lyubinets et al. 2018): reports of the kernel's bug tracker, one path of product and component each."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ptmt_lightning.data.benchmarks.base import FoldedDataModule, Published, Raw
from ptmt_lightning.data.benchmarks.download import zenodo
from ptmt_lightning.data.benchmarks.prepared import Labelled, read_jsonl
from ptmt_lightning.data.document import read_lines
from ptmt_lightning.utils.checks import check_range

_COLUMNS = ["title", "message", "importance", "product", "component"]
_TSV = ("linux_bugs.csv", "linux_bugs.csv.gz", "all_linux_bugs.csv", "all_linux_bugs.csv.gz")
# Texts that count as no value: the list that pandas uses, because its reader made the published figures.
_NULL = {
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
}  # fmt: skip
_END = "\0end"  # added as a last row, see _lines_and_end


class Report(NamedTuple):
    """A row of the tracker's export."""

    title: str
    message: str
    importance: str
    product: str
    component: str
    where: str  # file and line, for messages


class BugsDataModule(FoldedDataModule):
    """The Linux Bugs benchmark; see :class:`~ptmt_lightning.data.benchmarks.base.FoldedDataModule`.

    Args:
        min_documents: in the tab-separated form, products with fewer documents are left out, and then components whose
            name has fewer over all products.
        shared: see :class:`~ptmt_lightning.data.benchmarks.base.BenchmarkDataModule`.
    """

    short_name = "bugs"
    source = zenodo("7319519", "bugs_train.jsonl", "bugs_test.jsonl")
    published = Published(35_050, (17, 85), 2026, 18_692, 4_674, 11_684)

    def __init__(self, *, min_documents: int = 100, **shared: Any) -> None:
        super().__init__(**shared)
        check_range("dataset.min_documents", min_documents, 1, integer=True)
        self.min_documents = min_documents

    def settings(self) -> dict[str, Any]:
        """Return the setting that changes the prepared documents, ``min_documents``."""
        return {"min_documents": self.min_documents}

    def read_raw(self, files: Sequence[Path]) -> Raw:
        """Read the published JSON lines or the tracker's tab-separated export, whichever is there."""
        table, published = self.only_file(files, *_TSV), self.jsonl_files(files)
        if bool(table) == bool(published):
            raise self.not_found(files, "one of: bugs_train.jsonl with bugs_test.jsonl; linux_bugs.csv (or .csv.gz)")
        dropped: Counter[str] = Counter()
        if published:
            return Raw(", ".join(path.name for path in published), {"all": read_jsonl(published)}, dropped)
        assert table is not None
        reports = clean(list(read_reports(table)), self.min_documents, dropped)
        return Raw(table.name, {"all": [_document(report) for report in reports]}, dropped)


def read_reports(path: Path) -> Iterator[Report]:
    """Yield the rows of the tab-separated export; a quoted field may hold tabs, quotes and line breaks.

    Raises:
        ValueError: the heading lacks a column, or a row has the wrong number of fields or open quotes; the message says
            where.
    """
    csv.field_size_limit(1 << 30)
    rows = csv.reader(_lines_and_end(path), delimiter="\t")
    heading = _next(rows, f"{path}:1")
    heading = [] if heading == [_END] else heading
    missing = [column for column in _COLUMNS if column not in heading]
    if missing:
        raise ValueError(
            f"{path}:1: no column {', '.join(map(repr, missing))}, found {heading}; "
            f"expected {', '.join(_COLUMNS)}, separated by tabs"
        )
    columns = [heading.index(column) for column in _COLUMNS]
    row: list[str] = []
    while row != [_END]:
        where = f"{path}:{rows.line_num + 1}"
        row = _next(rows, where)
        if row and row != [_END]:
            if len(row) != len(heading):
                raise ValueError(
                    f"{where}: {len(row)} field(s), expected {len(heading)} separated by tabs; "
                    "correct the row or fetch the file again"
                )
            title, message, importance, product, component = (row[column] for column in columns)
            yield Report(title, message, importance, product, component, where)


def _next(rows: Iterator[list[str]], where: str) -> list[str]:
    try:
        row = next(rows)
    except csv.Error as error:
        raise ValueError(f"{where}: {error}; correct the row or fetch the file again") from None
    if row and _END in row[-1] and row != [_END]:
        raise ValueError(f"{where}: a quoted field of this row does not end; fetch the file again")
    return row


def _lines_and_end(path: Path) -> Iterator[str]:
    """Yield the lines of a file, and one more, which ends up within the last field if its quotes are still open."""
    for _, line in read_lines(path):
        yield line
    yield f"{_END}\n"


def clean(reports: list[Report], min_documents: int, dropped: Counter[str]) -> list[Report]:
    """Return the reports without those that lack a field, occur more than once, or have a rare label.

    Of reports with the same title and message none is kept. As in the authors' code, a product that is rare takes the
    reports with it whose component has its name, and a rare component those whose product has its name. Those left out
    are counted in ``dropped``, by reason.
    """

    def keep(reports: list[Report], kept: list[Report], reason: str) -> list[Report]:
        if len(kept) < len(reports):
            dropped[reason] += len(reports) - len(kept)
        return kept

    reports = keep(reports, [r for r in reports if r.message not in _NULL], "no message")
    copies = Counter((r.message, r.title) for r in reports)
    reports = keep(
        reports, [r for r in reports if copies[r.message, r.title] == 1], "same title and message as another"
    )
    reports = keep(reports, [r for r in reports if _NULL.isdisjoint(r)], "a field without a value")
    for field in ("product", "component"):
        counts = Counter(_name(getattr(r, field)) for r in reports)
        rare = {name for name, count in counts.items() if count < min_documents}
        kept = [r for r in reports if rare.isdisjoint(_names(r))]
        reports = keep(reports, kept, f"named as a {field} with fewer than {min_documents} documents")
    return reports


def _document(report: Report) -> Labelled:
    product, _, both = _names(report)
    return Labelled(f"{report.title} {report.message}", [[product, both]], report.where)


def _names(report: Report) -> tuple[str, str, str]:
    """Return the names of product and component, and of both together."""
    product, component = _name(report.product), _name(report.component)
    return product, component, f"{product}_{component}"


def _name(name: str) -> str:
    """Return a name as the published taxonomy writes it: all but letters, digits and ``_`` becomes one hyphen."""
    return re.sub(r"\W+", "-", name).strip("-")
