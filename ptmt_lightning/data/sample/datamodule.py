from __future__ import annotations

import json
import os
from pathlib import Path

from filelock import FileLock

from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.utils.files import new_folder
from ptmt_lightning.data.sample.texts import Draw, document, PATHS

_SIZES = {"train": int(os.environ.get("NTRAIN", 10000)), "val": 1000, "test": 1500}


class SampleDataModule(HTCDataModule):
    """Data module of the built-in sample, which it writes to ``path`` at the first start."""

    def prepare_data(self) -> None:
        """Write the sample unless it is there already, then check its folder."""
        write_sample(self.path)
        super().prepare_data()


def write_sample(folder: Path) -> None:
    """Write ``taxonomy.tsv`` and ``{train,val,test}.jsonl`` into ``folder``, unless it exists.

    The files are the same on every machine.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if folder.exists():
            return
        with new_folder(folder) as temporary:
            _write_files(temporary)

def _name(path):
    return " ".join([path[0], *(p.lower() for p in path[1:])])

def _write_files(folder: Path) -> None:
    draw = Draw(0)
    with (folder / "taxonomy.tsv").open("w") as f:
        for p in PATHS:
            f.write(f"{_name(p[:-1]) if len(p) > 1 else 'ROOT'}\t{_name(p)}\n")
    seen = set()
    for split, size in _SIZES.items():
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            n = 0
            while n < size:
                d = document(draw)
                if d["text"] in seen:
                    continue
                seen.add(d["text"])
                n += 1
                d["labels"] = [[_name(p[:i+1]) for i in range(len(p))] for p in d["labels"]]
                file.write(json.dumps(d) + "\n")
