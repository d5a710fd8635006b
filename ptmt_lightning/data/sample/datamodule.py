"""The built-in sample as a data folder, and its data module."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from filelock import FileLock

from ptmt_lightning.data.datamodule import HTCDataModule
from ptmt_lightning.data.kinds import fitting_dataset, is_sample
from ptmt_lightning.data.sample.texts import documents, paths
from ptmt_lightning.utils.files import new_folder

_SIZES = {"val": 1000, "test": 1500, "train": 20000}


class SampleDataModule(HTCDataModule):
    """Data module of the built-in sample, which it writes to ``path`` at the first start."""

    def prepare_data(self) -> None:
        """Write the sample unless it is there already, then check its folder.

        Raises:
            ValueError: something else is there; the message says which data set to choose for it.
        """
        if self.path.exists() and not is_sample(self.path):
            raise ValueError(
                f"dataset.path={str(self.path)!r}: not the built-in sample, which dataset=sample is; for your own data "
                f"set {fitting_dataset(str(self.path))}"
            )
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


def _write_files(folder: Path) -> None:
    lines = ["\t".join(path) for path in [("level1", "level2", "level3"), *paths()]]
    (folder / "taxonomy.tsv").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    supply = documents()
    for split, size in _SIZES.items():
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(document) + "\n" for document in itertools.islice(supply, size))
