"""Files are read and written in UTF-8 whatever the locale says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT_DIR, saved_ptmt

from ptmt_lightning.taxonomy import Taxonomy

# Each place that opens a file without saying how is an error, where it is the package's own.
SCRIPT = """
import sys, warnings
warnings.filterwarnings("error", category=EncodingWarning, module="ptmt_lightning")
from ptmt_lightning.backbones import word_tokenizer
from ptmt_lightning.cli import main
from ptmt_lightning.data.datamodule import HTCDataModule
folder, texts, data, cache, *outputs = sys.argv[1:]
data = HTCDataModule(path=data, cache_dir=cache)
data.prepare_data()
tokenizer = word_tokenizer(data.texts("train"), 50)
data.connect(tokenizer=tokenizer, max_tokens=8, train_collator=list, eval_collator=list)
print(ascii((data.name, *data.taxonomy.names)))
for output in outputs:
    main(["predict", folder + "/model", texts, "-o", output])
"""


@pytest.mark.slow  # a process that imports everything
@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONUTF8": "1"}]
)
def test_accents_in_names_and_contents_need_no_locale(
    tmp_path: Path, toy_taxonomy: Taxonomy, locale: dict[str, str]
) -> None:
    saved_ptmt(tmp_path, toy_taxonomy)
    data = tmp_path / "données"
    data.mkdir()
    (data / "taxonomy.tsv").write_text("ROOT\tCafé\n", encoding="utf-8")
    (data / "textes.txt").write_text("m n é\n", encoding="utf-8")
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    for split in ("train", "val"):
        line = json.dumps({"text": "m é", "labels": [["Café"]]}, ensure_ascii=False)
        (data / f"{split}.jsonl").write_text(line + "\n", encoding="utf-8")
    paths = [data / "textes.txt", data, tmp_path / "caché", tmp_path / "é.jsonl", tmp_path / "é.csv"]
    environment = os.environ | locale | {"PYTHONWARNDEFAULTENCODING": "1", "PYTHONPATH": str(ROOT_DIR)}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), str(tmp_path), *map(str, paths)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ascii(("données", "Café"))
    assert json.loads((tmp_path / "é.jsonl").read_text(encoding="utf-8"))["row"] == 1
    assert (tmp_path / "é.csv").exists()
