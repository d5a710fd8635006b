"""CSV tables whose cells spreadsheets take for text, and the way back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# What a spreadsheet takes for the beginning of a formula, after any apostrophes.
_FORMULA = re.compile("'*[-=+@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def harmless(cell: Any) -> Any:
    """Return a cell that spreadsheets take for text: with one more apostrophe where it would be a formula without."""
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def plain(cell: Any) -> Any:
    """Return the cell from which :func:`harmless` made this one."""
    return cell[1:] if isinstance(cell, str) and cell.startswith("'") and _FORMULA.match(cell) else cell


def csv_text(table: pd.DataFrame) -> str:
    """Return a table as CSV without its index; cells and headings that would be formulas are made harmless."""
    text: str = table.map(harmless).rename(columns=harmless).to_csv(index=False)
    return text


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """Read a table that :func:`csv_text` made.

    Args:
        path: of the file.
        options: of :func:`pandas.read_csv`.
    """
    import pandas as pd  # imported only here, for it takes a second

    table: pd.DataFrame = pd.read_csv(path, encoding="utf-8", **options)
    return table.map(plain).rename(columns=plain)
