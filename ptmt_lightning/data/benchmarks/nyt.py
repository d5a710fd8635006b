"""New York Times Annotated Corpus (Sandhaus 2008), 166 taxonomic labels on eight levels, several paths an article.

The corpus is licensed (LDC2008T19). The field's selection of 36,471 articles (Zhou et al. 2020) is made from it by the
scripts of HiAGM, HGCLR or HBGL, whose JSON files are read here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ptmt_lightning.data.benchmarks.base import BenchmarkDataModule, Published, Raw
from ptmt_lightning.data.benchmarks.download import Source
from ptmt_lightning.data.benchmarks.topic_sets import json_files, json_form, read_json_splits


class NYTDataModule(BenchmarkDataModule):
    """The New York Times corpus; see :class:`~ptmt_lightning.data.benchmarks.base.BenchmarkDataModule`."""

    short_name = "nyt"
    source = Source(page="https://catalog.ldc.upenn.edu/LDC2008T19", files={})
    published = Published(36_471, None, None, 23_345, 5_834, 7_292)

    def read_raw(self, files: Sequence[Path]) -> Raw:
        """Read the JSON files and the taxonomy beside them."""
        found = json_files(self, files)
        if len(found) < 4:
            raise self.not_found(files, json_form("nyt"))
        return Raw(f"the JSON files in {found['train'].parent}", read_json_splits(found), Counter())
